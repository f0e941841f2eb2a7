"""Schedules: which classes and images each step has."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from eircli.common.errors import UserError
from eircli.config.manifest import Setting
from eircli.config.orders import NAMED_ORDERS
from eircli.config.protocols import Part, Schedule, parse_schedule
from tests import reference

SIZES = {
    ("joint", 20): [20],
    ("19-1", 20): [19, 1],
    ("15-5", 20): [15, 5],
    ("15-1", 20): [15, 1, 1, 1, 1, 1],
    ("10-10", 20): [10, 10],
    ("10-5", 20): [10, 5, 5],
    ("10-1", 20): [10] + 10 * [1],
    ("5-3", 20): [5, 3, 3, 3, 3, 3],
    ("joint", 150): [150],
    ("100-50", 150): [100, 50],
    ("100-10", 150): [100, 10, 10, 10, 10, 10],
    ("100-5", 150): [100] + 10 * [5],
    ("50-50", 150): [50, 50, 50],
    ("6-2-3", 11): [6, 2, 3],
    ("9-3", 15): [9, 3, 3],
    ("4-3", 9): [4, 3, 2],
}


@pytest.mark.parametrize(("spec", "classes"), SIZES)
def test_sizes(spec: str, classes: int) -> None:
    schedule = parse_schedule(spec, classes)
    assert [len(step) for step in schedule.steps] == SIZES[spec, classes]
    assert schedule.seen(len(schedule) - 1) == tuple(range(1, classes + 1))


def test_shuffled_order_and_channels() -> None:
    schedule = parse_schedule("2-1", 4, order=[3, 1, 4, 2])
    assert schedule.steps == ((3, 1), (4,), (2,))
    assert parse_schedule([[3, 1], [4], [2]], 4) == schedule
    table = schedule.channel_table(schedule.seen(1), 1)
    assert [table[i] for i in (0, 3, 1, 4, 2, 255)] == [0, 1, 2, 3, 0, 255]
    assert schedule.learned_at(2) == 2


@pytest.mark.parametrize(
    ("spec", "order", "message"),
    [
        ("15", None, "not a schedule"),
        ("21-1", None, "needs 22 classes"),
        ([[1, 2], [2]], None, "class id 2 is learned twice"),
        ([[1], [21]], None, "class id 21 is not among"),
        ([[1], []], None, "at least one class"),
        ("15-1", [1, 2], "each class id 1..20 once"),
        ([[1]], [1], "an explicit list of steps"),
    ],
)
def test_bad_schedules_are_refused(spec: str | list[list[int]], order: list[int] | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_schedule(spec, 20, order)


steps_of_eight = st.permutations(range(1, 9)).map(lambda ids: [list(ids[:3]), list(ids[3:4]), list(ids[4:6])])


@given(
    steps=steps_of_eight,
    images=st.lists(st.sets(st.sampled_from([0, *range(1, 9), 255])), min_size=1, max_size=12),
    step=st.integers(0, 2),
    part=st.sampled_from(["train", "val", "test"]),
    setting=st.sampled_from(["overlapped", "disjoint"]),
)
def test_which_images_a_step_has(steps: list[list[int]], images: list[set[int]], step: int, part: Part, setting: Setting) -> None:
    presence = np.zeros((len(images), 9), bool)
    for row, ids in zip(presence, images, strict=True):
        row[[i for i in ids if i != 255]] = True
    chosen = Schedule(tuple(tuple(s) for s in steps)).select(presence, step, part, setting)
    assert chosen.tolist() == reference.select_images(images, steps, step, part, setting)


@given(steps=steps_of_eight, step=st.integers(0, 2), seed=st.integers(0, 99))
def test_visible_labels(steps: list[list[int]], step: int, seed: int) -> None:
    label = np.random.default_rng(seed).choice([*range(9), 255], (6, 6)).astype(np.uint8)
    schedule = Schedule(tuple(tuple(s) for s in steps))
    visible = schedule.channel_table(schedule.new(step), step)[label]
    np.testing.assert_array_equal(visible, reference.visible_label(label, steps, step))


def voc_index(folder: Path, name: str) -> list[set[int]]:
    return [{int(word) for word in line.split()[1:]} for line in (folder / f"voc-index/{name}.txt").read_text().splitlines()]


@pytest.mark.parametrize("setting", ["overlapped", "disjoint"])
@pytest.mark.parametrize("spec", ["15-5", "15-1", "10-1", "5-3", "19-1"])
def test_steps_of_voc(real_images: Path, spec: str, setting: Setting) -> None:
    images = voc_index(real_images, "train_aug")
    presence = np.array([[i in ids for i in range(21)] for ids in images])
    schedule = parse_schedule(spec, 20)
    steps = [list(step) for step in schedule.steps]
    for step in range(len(schedule)):
        assert schedule.select(presence, step, "train", setting).tolist() == reference.select_images(
            images, steps, step, "train", setting
        )


def test_known_sizes_of_voc_15_5(real_images: Path) -> None:
    presence = np.array([[i in ids for i in range(21)] for ids in voc_index(real_images, "train_aug")])
    schedule = parse_schedule("15-5", 20)
    assert [len(schedule.select(presence, step, "train")) for step in (0, 1)] == [9568, 2145]


@given(
    steps=steps_of_eight,
    images=st.lists(st.sets(st.sampled_from([0, *range(1, 9)])), min_size=1, max_size=12),
    seed=st.integers(0, 5),
)
def test_partitioned_deals_every_image_to_one_step_that_has_a_class_of_it(
    steps: list[list[int]], images: list[set[int]], seed: int
) -> None:
    presence = np.array([[i in ids for i in range(9)] for ids in images])
    schedule = Schedule(tuple(tuple(s) for s in steps))
    dealt = [schedule.select(presence, step, "train", "partitioned", seed).tolist() for step in range(3)]
    known = {class_id for step in steps for class_id in step}
    assert sorted(i for step in dealt for i in step) == [i for i, ids in enumerate(images) if ids & known]
    assert all(images[i] & set(steps[step]) for step in range(3) for i in dealt[step])
    assert dealt == [schedule.select(presence, step, "train", "partitioned", seed).tolist() for step in range(3)]


def test_a_partition_is_even_over_classes_not_steps() -> None:
    presence = np.ones((6000, 4), bool)
    schedule = parse_schedule("2-1", 3)
    sizes = [len(schedule.select(presence, step, "train", "partitioned", seed=1)) for step in (0, 1)]
    assert sum(sizes) == 6000
    assert sizes[0] / 6000 == pytest.approx(2 / 3, abs=0.02)
    assert sizes != [len(schedule.select(presence, step, "train", "partitioned", seed=2)) for step in (0, 1)]


def test_shuffled_orders() -> None:
    by_seed = [parse_schedule("15-1", 20, order=f"seed:{seed}") for seed in (3, 3, 4)]
    assert by_seed[0] == by_seed[1] != by_seed[2]
    assert sorted(by_seed[0].seen(5)) == list(range(1, 21))
    named = parse_schedule("15-1", 20, order="voc-15-1-b")
    assert named.new(1) == (17,)
    assert named.new(5) == (10,)
    for order, message in (("voc-15-1-a", "is unknown"), ("seed:x", "is unknown"), ("voc-15-1-b", "order of 20 classes")):
        with pytest.raises(UserError, match=message):
            parse_schedule("2-1", 4 if "20" in message else 20, order=order)


def test_named_orders_are_the_fields(real_images: Path) -> None:
    published = yaml.safe_load((real_images / "voc-15-1-orders.yaml").read_text())
    assert {f"voc-15-1-{name}": tuple(order) for name, order in published.items()} == NAMED_ORDERS
    assert all(sorted(order) == list(range(1, 21)) for order in NAMED_ORDERS.values())
