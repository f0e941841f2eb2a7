"""The bank: what is harvested, how it is balanced, stored and read back."""

import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eircli.common.errors import UserError
from eircli.common.types import CANVAS, Box, Instance, Sample, UInt8Array
from eircli.memory.bank import Bank, write_bank
from eircli.memory.decoded import decode
from eircli.memory.encoded import INDEX, encode
from eircli.memory.harvest import Candidate, Origin, Selection, candidates, cut_out
from eircli.memory.select import share_out
from eircli.memory.standalone import StandaloneInstances
from eircli.memory.synthetic import synthetic_bank
from tests import reference


class OneImage:
    """A source of a single sample."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample

    def __len__(self) -> int:
        return 1

    def load(self, index: int) -> Sample:
        return self.sample


def random_label(seed: int) -> UInt8Array:
    return np.random.default_rng(seed).choice([0, 0, 0, 1, 2, 255], (7, 8)).astype(np.uint8)


def make_instances() -> list[Instance]:
    generator = np.random.default_rng(0)
    instances = []
    for number, class_id in enumerate([7, 7, 3, 5]):
        mask = generator.random((6 + number, 5)) < 0.6
        mask[0, 0] = True
        image = np.where(mask[..., None], generator.integers(0, 256, (*mask.shape, 3)), CANVAS).astype(np.uint8)
        box = Box(2, 1, 2 + mask.shape[0], 6)
        instances.append(Instance(image, mask, class_id, f"bild-{number} ä", box, (20, 30), number % 2))
    return instances


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    write_bank(tmp_path / "bank.h5", [encode(i, "png", 95) for i in make_instances()], {"step": 1})
    return Bank(tmp_path / "bank.h5")


@given(seed=st.integers(0, 500), selection=st.sampled_from(["single-component", "component"]), min_area=st.integers(1, 6))
def test_candidates(seed: int, selection: Selection, min_area: int) -> None:
    label = random_label(seed)
    found = candidates(label, [1, 2], 0, selection, min_area)
    for channel in (1, 2):
        parts = reference.components(label == channel)
        if selection == "single-component":
            wanted = parts if len(parts) == 1 else []
        else:
            wanted = [part for part in parts if part.sum() >= min_area]
        sample = Sample(np.zeros((7, 8, 3), np.uint8), label)
        cut = [cut_out(sample, c, Origin(9, "x", 0), CANVAS) for c in found if c.channel == channel]
        whole = [np.zeros(label.shape, bool) for _ in cut]
        for canvas, instance in zip(whole, cut, strict=True):
            canvas[instance.box.top : instance.box.bottom, instance.box.left : instance.box.right] = instance.mask
        assert sorted(map(np.ndarray.tolist, whole)) == sorted(map(np.ndarray.tolist, wanted))


def test_nothing_outside_the_mask_is_kept() -> None:
    label = np.zeros((9, 9), np.uint8)
    label[2:5, 3] = label[4, 3:7] = 1
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    instance = cut_out(Sample(image, label), Candidate(1, 0, 1, 6), Origin(4, "x", 2), (9, 8, 7))
    assert instance.box == Box(2, 3, 5, 7)
    assert instance.area == 6
    assert (instance.image[~instance.mask] == (9, 8, 7)).all()
    np.testing.assert_array_equal(instance.image[instance.mask], image[label == 1])


@given(supply=st.dictionaries(st.integers(1, 9), st.integers(0, 12), min_size=1), budget=st.integers(1, 60))
def test_balanced_quota(supply: dict[int, int], budget: int) -> None:
    ranked = {name: range(count) for name, count in supply.items()}
    kept = share_out(ranked, budget)
    assert {name: len(items) for name, items in kept.items()} == reference.balanced_quota(supply, budget)
    assert all(items == list(range(len(items))) for items in kept.values()), "the best ranked first"


def test_bank_gives_back_what_it_was_given(bank: Bank) -> None:
    for position, expected in enumerate(make_instances()):
        found = bank.load(position)
        np.testing.assert_array_equal(found.image, expected.image)
        np.testing.assert_array_equal(found.mask, expected.mask)
        assert (found.class_id, found.source, found.box) == (expected.class_id, expected.source, expected.box)
        assert (found.source_size, found.step, found.area) == (expected.source_size, expected.step, expected.area)
    assert bank.per_class() == {3: 1, 5: 1, 7: 2}


def test_bank_is_the_records_class_by_class(tmp_path: Path) -> None:
    records = [encode(instance, "png", 95) for instance in make_instances()]
    write_bank(tmp_path / "b.h5", iter(records), {"rule": "random"})
    bank = Bank(tmp_path / "b.h5")
    assert [bank.record(position) for position in range(len(bank))] == records
    assert bank.classes == {7: range(2), 3: range(2, 3), 5: range(3, 4)}
    assert bank.index["class_id"].tolist() == [7, 7, 3, 5]
    assert bank.size == sum(record.size for record in records)
    assert bank.facts["rule"] == "random"
    with pytest.raises(AssertionError, match="grouped by class"):
        write_bank(tmp_path / "c.h5", [records[0], records[2], records[1]], {})
    assert list(tmp_path.iterdir()) == [tmp_path / "b.h5"]


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Banks of 100 and of 20,000 instances of 4 classes."""
    folder = tmp_path_factory.mktemp("banks")
    for count in (100, 20_000):
        synthetic_bank(folder / f"{count}.h5", count, classes=4, side=4)
    return {count: folder / f"{count}.h5" for count in (100, 20_000)}


def peak(action: Callable[[], object]) -> int:
    """The most bytes that Python and NumPy held at once."""
    tracemalloc.start()
    action()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_a_large_bank_takes_no_more_memory_than_a_small_one(banks: dict[int, Path], tmp_path: Path) -> None:
    def look(path: Path) -> None:
        bank, generator = Bank(path), np.random.default_rng(0)
        for class_id in bank.classes:
            bank.draw(class_id, generator)

    look(banks[100])  # what is loaded once
    small, large = (peak(lambda path=path: look(path)) for path in banks.values())  # type: ignore[misc]
    assert large < small + 20_000 * INDEX.itemsize / 10
    assert peak(lambda: Bank(banks[20_000]).index) > 20_000 * INDEX.itemsize
    short, long = (peak(lambda count=count: synthetic_bank(tmp_path / "b.h5", count, 4, 4)) for count in (100, 5000))  # type: ignore[misc]
    assert long < short + 5000 * INDEX.itemsize / 10


def test_a_small_bank_is_a_small_file(banks: dict[int, Path]) -> None:
    for count, path in banks.items():
        assert path.stat().st_size - Bank(path).size < 8000, count


@pytest.mark.parametrize("count", [100, 20_000])
def test_every_instance_of_a_class_is_drawn_as_often(banks: dict[int, Path], count: int) -> None:
    bank, generator = Bank(banks[count]), np.random.default_rng(0)
    assert {class_id: len(positions) for class_id, positions in bank.classes.items()} == dict.fromkeys(range(1, 5), count // 4)
    drawn = [bank.draw(3, generator) for _ in range(400)]
    assert {instance.class_id for instance in drawn} == {3}
    numbers = np.array([int(instance.source.removeprefix("synthetic-")) for instance in drawn])
    tenths = np.bincount((numbers - count // 2) * 40 // count, minlength=10)
    assert len(tenths) == 10
    assert 20 < tenths.min() <= tenths.max() < 60


def test_jpeg_is_close_and_masks_stay_exact(tmp_path: Path) -> None:
    smooth = np.linspace(60, 200, 40 * 30 * 3).reshape(40, 30, 3).astype(np.uint8)
    mask = np.ones((40, 30), bool)
    write_bank(tmp_path / "b.h5", [encode(Instance(smooth, mask, 1, "a", Box(0, 0, 40, 30), (40, 30), 0), "jpeg", 95)], {})
    found = Bank(tmp_path / "b.h5").load(0)
    assert np.abs(found.image.astype(int) - smooth).max() <= 6
    assert found.mask.all()


def test_bank_files_are_reproducible(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_bank(tmp_path / name, [encode(i, "jpeg", 95) for i in make_instances()], {"step": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_bank_travels_to_other_processes_unopened(bank: Bank) -> None:
    bank.load(0)
    assert pickle.loads(pickle.dumps(bank)).load(2).class_id == 3


def test_decoded_bank_is_ordered_by_channel(bank: Bank) -> None:
    table = np.zeros(256, np.uint8)
    table[[7, 5, 3]] = [1, 2, 3]
    decoded = decode(bank, table, 4, torch.device("cpu"))
    assert decoded.instance_count.tolist() == [0, 2, 1, 1, 0]
    assert decoded.first.tolist() == [0, 0, 2, 3, 4]
    second = bank.load(1)
    start, area = int(decoded.start[1]), second.mask.size
    np.testing.assert_array_equal(decoded.pixels[start : start + area, :3], second.image.reshape(-1, 3))
    np.testing.assert_array_equal(decoded.pixels[start : start + area, 3], second.mask.ravel())
    assert decoded.nonempty.tolist() == [1, 2, 3]
    assert decoded.height.tolist() == [bank.load(position).mask.shape[0] for position in (0, 1, 3, 2)]


def test_standalone_instance_stands_alone(bank: Bank) -> None:
    table = np.zeros(256, np.uint8)
    table[7] = 4
    image, label = StandaloneInstances(bank, table, (9, 8, 7)).load(0)
    instance = bank.load(0)
    place = np.zeros((20, 30), bool)
    place[2:8, 1:6] = instance.mask
    np.testing.assert_array_equal(label, np.where(place, 4, 0))
    assert (image[~place] == (9, 8, 7)).all()
    np.testing.assert_array_equal(image[place], instance.image[instance.mask])


def test_damage_is_found_and_named(bank: Bank) -> None:
    content = bytearray(bank.path.read_bytes())
    content[content.index(b"IDAT") + 9] ^= 255
    damaged = bank.path.with_name("damaged.h5")
    damaged.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.h5: damaged .*build it again"):
        Bank(damaged).load(0)
    damaged.write_bytes(content[:100])
    with pytest.raises(UserError, match=r"damaged\.h5: damaged"):
        Bank(damaged)


def test_other_files_are_no_banks(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["index"] = [1, 2]
    with pytest.raises(UserError, match="no bank of schema 4"):
        Bank(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file.attrs["eir_bank_schema"] = 2
    with pytest.raises(UserError, match=r"schema 4 \(found 2\); build it again with eir build-memory --again"):
        Bank(tmp_path / "x.h5")
    with pytest.raises(UserError, match="missing"):
        Bank(tmp_path / "y.h5")
