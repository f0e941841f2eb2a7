"""The banks of whole runs against a slow account of what they should hold."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pytest
from PIL import Image

from eircli.common.types import CANVAS, IGNORE, Box, Exemplar, Instance, Sample, StoredImage, UInt8Array
from eircli.memory.bank import Bank
from eircli.memory.encoded import encode
from eircli.run.run import open_run
from eircli.stages.build_memory import build_memory
from tests import reference_memory as slow
from tests.reference_memory import Candidate, Supply

TINY = Path(__file__).parent / "tiny.yaml"
SHAPES = "{kind: shapes, size: 32, groups: [2, 1, 1], train_images: [12, 7, 7], val_images: 2, co_occurrence: 0.6}"
METHODS = {"instances": "{name: eir, slot: 16}", "images": "{name: image-replay}"}
SIDE = 14
"""Short side of the folders' images at the working size."""
GRAIN = 3
"""How many times larger the files of `coarse` are."""
AMPLE = 1000


class Case(NamedTuple):
    """A data set, a schedule, and what is a candidate."""

    data: Literal["shapes", "blocks", "coarse"]
    steps: tuple[tuple[int, ...], ...]
    kind: Literal["instances", "images"] = "instances"
    selection: Literal["single-component", "component"] = "single-component"
    min_area: int = 64
    setting: Literal["overlapped", "disjoint"] = "overlapped"

    def __str__(self) -> str:
        steps = "-".join("".join(map(str, classes)) for classes in self.steps)
        how = f"{self.selection}-{self.min_area}" if self.kind == "instances" else self.kind
        return f"{self.data}-{steps}-{how}-{self.setting}"


INSTANCES = [
    Case("shapes", ((1, 2), (3,), (4,))),
    Case("shapes", ((4, 2), (1,), (3,)), setting="disjoint"),
    Case("shapes", ((3,), (4, 1), (2,)), selection="component", min_area=20),
    Case("blocks", ((4, 2), (5, 1), (3,))),
    Case("blocks", ((4, 2), (5, 1), (3,)), selection="component", min_area=5),
    Case("blocks", ((2, 3), (1,), (5, 4)), selection="component", min_area=9, setting="disjoint"),
    Case("coarse", ((1, 4), (2, 5), (3,)), selection="component", min_area=6),
]
IMAGES = [
    Case("shapes", ((1, 2), (3,), (4,)), "images"),
    Case("shapes", ((4, 2), (1,), (3,)), "images", setting="disjoint"),
    Case("blocks", ((4, 2), (5, 1), (3,)), "images"),
    Case("blocks", ((1, 5), (4,), (3, 2)), "images", setting="disjoint"),
    Case("coarse", ((1, 2, 3), (5,), (4,)), "images"),
]


def draw_label(random: np.random.Generator) -> UInt8Array:
    """Blocks of few sizes, so that areas tie: class 2 is rare, class 5 in two parts, others at times in two that meet at a corner."""
    label = np.zeros((SIDE, random.integers(SIDE, SIDE + 4)), np.uint8)
    for class_id in random.choice([1, 2, 3, 4, 5], random.integers(1, 4), replace=False, p=[0.26, 0.06, 0.25, 0.25, 0.18]):
        height, width = random.integers(2, 4, 2)
        top, left = random.integers(0, SIDE - 2 * height), random.integers(0, SIDE - 2 * width)
        label[top : top + height, left : left + width] = class_id
        if class_id == 5:
            label[-1, -4:] = class_id
        elif random.random() < 0.4:
            label[top + height : top + 2 * height, left + width : left + 2 * width] = class_id
    label[:, random.integers(SIDE)] = IGNORE
    return label


class Data(NamedTuple):
    """A data set."""

    overrides: list[str]
    samples: dict[str, Sample]
    """By id; labels at the working size."""

    def offered(self, case: Case, step: int) -> Supply:
        """The candidates in the images of a step."""
        labels = {name: sample.label for name, sample in self.samples.items()}
        return slow.candidates(case.kind, labels, case.steps, step, case.setting, case.selection, case.min_area)


def draw_folder(root: Path, grain: int) -> Data:
    """A folder of images `grain` times the working size. The nearest pixel is the middle one of `grain`; others are anything."""
    random, samples = np.random.default_rng(7), {}
    for split, count in (("training", 24), ("validation", 1)):
        for part in ("images", "annotations"):
            (root / part / split).mkdir(parents=True)
        for number in range(count):
            label = draw_label(random)
            file = random.integers(0, 6, (grain * label.shape[0], grain * label.shape[1])).astype(np.uint8)
            file[grain // 2 :: grain, grain // 2 :: grain] = label
            image = random.integers(0, 256 >> number % 8, (*file.shape, 3)).astype(np.uint8)  # of all sizes in bytes
            Image.fromarray(image).save(root / f"images/{split}/{number:02}.png")
            Image.fromarray(file).save(root / f"annotations/{split}/{number:02}.png")
            if split == "training":
                samples[f"{number:02}"] = Sample(image, label)
    (root / "classes.txt").write_text("one\ntwo\nthree\nfour\nfive\n")
    return Data([f"dataset={{kind: folder, root: {root}}}", f"data.short_side={SIDE}"], samples)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Data]:
    """The data sets that the cases name."""
    folder, overrides = tmp_path_factory.mktemp("data"), [f"dataset={SHAPES}"]
    train = open_run(TINY, overrides, folder / "run").dataset.train
    return {
        "shapes": Data(overrides, {name: train.load(index) for index, name in enumerate(train.ids)}),
        "blocks": draw_folder(folder / "blocks", 1),
        "coarse": draw_folder(folder / "coarse", GRAIN),
    }


class Built(NamedTuple):
    """A bank of the program, and what it was made from."""

    bank: Bank
    kept: Supply
    """What it holds."""
    before: Supply
    """What the bank before held."""
    new: Supply
    """What the images offered."""


def build(
    path: Path, data: Data, case: Case, budget: int | str, rule: str = "largest", encoding: str = "jpeg"
) -> Iterator[Built]:
    """The banks of steps 1 and 2."""
    protocol = f"protocol={{schedule: {[list(classes) for classes in case.steps]}, setting: {case.setting}}}"
    memory = (
        f"memory={{budget: {budget}, rule: {rule}, selection: {case.selection}, min_area: {case.min_area}, encoding: {encoding}}}"
    )
    run = open_run(TINY, [*data.overrides, protocol, f"method={METHODS[case.kind]}", memory], path / "run").checked()
    with run.locked():
        for step in (1, 2):
            build_memory(run, step, lambda _: None)
    before: Supply = {}
    for step in (1, 2):
        bank = Bank(run.directory.bank(step))
        kept: Supply = {class_id: [] for class_id in chain(*case.steps[:step])}
        for class_id, positions in bank.classes.items():
            kept[class_id] = [as_candidate(bank, position, case) for position in positions]
        yield Built(bank, kept, before, data.offered(case, step - 1))
        before = kept


def as_candidate(bank: Bank, position: int, case: Case) -> Candidate:
    """What a bank says of an exemplar, and the pixels that it has stored."""
    found: Exemplar
    if case.kind == "instances":
        found = bank.load(position)
        (top, left), mask = found.box[:2], found.mask
    else:
        found = bank.load_image(position)
        (top, left), mask = (0, 0), found.label == found.class_id
    pixels = frozenset((int(r) + top, int(c) + left) for r, c in np.argwhere(mask))
    return Candidate(found.class_id, found.source, bank.record(position).area, found.step, pixels)


def facts(supply: Supply) -> dict[int, list[tuple[str, int, int]]]:
    """Source, area and step alone: which of equal parts of one image comes first is not promised."""
    return {class_id: [(one.source, one.area, one.step) for one in some] for class_id, some in supply.items()}


def counts(supply: Supply) -> dict[int, int]:
    return {class_id: len(some) for class_id, some in supply.items()}


def every(supply: Supply) -> list[Candidate]:
    return list(chain.from_iterable(supply.values()))


def meets_at_a_corner(pixels: frozenset[slow.Pixel]) -> bool:
    return any((r + 1, c + 1) in pixels and not {(r + 1, c), (r, c + 1)} & pixels for r, c in pixels)


def check_promises(case: Case, made: Built, budget: int, cost: slow.Cost = slow.one) -> None:
    """What holds of a bank whatever the rule."""

    def identity(candidate: Candidate) -> object:
        return candidate.source if case.kind == "images" else candidate

    supply, chosen = made.before | made.new, every(made.kept)
    gone = {identity(candidate) for candidate in chosen}
    assert len(gone) == len(chosen), "each once"
    left = budget - sum(map(cost, chosen))
    assert left >= 0, "within the budget"
    for class_id, offered in supply.items():
        kept = made.kept[class_id]
        assert set(kept) <= set(offered), "candidates of the class"
        if class_id in made.before:
            assert kept == [candidate for candidate in offered if candidate in kept], "in the order of the bank before"
        # What was left at the first turn that the class did not take is at least this.
        left_then = left + sum(cost(candidate) for others in made.kept.values() for candidate in others[len(kept) + 1 :])
        assert all(cost(other) > left_then for other in offered if identity(other) not in gone), "no turn passed in vain"


def weigher(data: Data, case: Case) -> slow.Cost:
    """How many bytes a candidate costs as a PNG, whose size depends more on the image than a JPEG's."""
    known: dict[Candidate, int] = {}

    def cost(candidate: Candidate) -> int:
        if candidate not in known:
            known[candidate] = encode(exemplar(data, case, candidate), "png", 95).size
        return known[candidate]

    return cost


def exemplar(data: Data, case: Case, candidate: Candidate) -> Exemplar:
    """The whole image with what was visible of its label, or the crop of the pixels, blank elsewhere."""
    image, label = data.samples[candidate.source]
    if case.kind == "images":
        shifted = np.array(slow.visible(label, case.steps[candidate.step]), np.uint8)
        return StoredImage(image, shifted, candidate.class_id, candidate.source, candidate.step)
    rows, columns = ([pixel[axis] for pixel in candidate.pixels] for axis in (0, 1))
    box = Box(min(rows), min(columns), max(rows) + 1, max(columns) + 1)
    crop = np.full((box.bottom - box.top, box.right - box.left, 3), CANVAS, np.uint8)
    mask = np.zeros(crop.shape[:2], bool)
    for row, column in candidate.pixels:
        crop[row - box.top, column - box.left], mask[row - box.top, column - box.left] = image[row, column], True
    return Instance(crop, mask, candidate.class_id, candidate.source, box, (label.shape[0], label.shape[1]), candidate.step)


@pytest.mark.parametrize("budget", [4, 7, 13, AMPLE])
@pytest.mark.parametrize("case", INSTANCES + IMAGES, ids=str)
def test_a_bank_holds_what_the_slow_account_says(tmp_path: Path, data: dict[str, Data], case: Case, budget: int) -> None:
    before: Supply = {}
    for made in build(tmp_path, data[case.data], case, budget):
        before = slow.next_bank(case.kind, before, made.new, budget)
        assert facts(made.kept) == facts(before)
        check_promises(case, made, budget)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("case", [INSTANCES[1], INSTANCES[3], INSTANCES[4], IMAGES[0], IMAGES[2]], ids=str)
def test_a_budget_in_bytes_is_spent_in_turns(tmp_path: Path, data: dict[str, Data], case: Case, share: float) -> None:
    source, before = data[case.data], Supply()
    cost = weigher(source, case)
    budget = int(share * sum(cost(candidate) for step in (0, 1) for candidate in every(source.offered(case, step))))
    for made in build(tmp_path, source, case, f"{budget}B", encoding="png"):
        before = slow.next_bank(case.kind, before, made.new, budget, cost)
        assert made.bank.size == sum(map(cost, every(made.kept)))
        check_promises(case, made, budget, cost)
        if case.selection == "single-component":
            assert facts(made.kept) == facts(before)


@pytest.mark.parametrize("budget", [7, 16])
@pytest.mark.parametrize("case", [*INSTANCES[1:5], *IMAGES[1:3]], ids=str)
def test_at_random_as_many_are_kept(tmp_path: Path, data: dict[str, Data], case: Case, budget: int) -> None:
    for made in build(tmp_path, data[case.data], case, budget, "random"):
        check_promises(case, made, budget)
        expected = slow.next_bank(case.kind, made.before, made.new, budget)
        assert len(every(made.kept)) == len(every(expected))
        if case.kind == "instances":
            assert counts(made.kept) == counts(expected)


def test_a_stored_image_has_the_labels_of_its_step(tmp_path: Path, data: dict[str, Data]) -> None:
    case = IMAGES[2]
    for made in build(tmp_path, data[case.data], case, 13):
        for position in range(len(made.bank)):
            stored = made.bank.load_image(position)
            label = data[case.data].samples[stored.source].label
            assert stored.label.tolist() == slow.visible(label, case.steps[stored.step])


def test_the_cases_are_about_what_decides(data: dict[str, Data]) -> None:
    """Otherwise a later change of the drawings could empty the tests above unseen."""
    blocks = data["blocks"]
    single, parts = (blocks.offered(case, 0) | blocks.offered(case, 1) for case in (INSTANCES[3], INSTANCES[4]))
    early, late = ({candidate.source for candidate in every(blocks.offered(IMAGES[2], step))} for step in (0, 1))
    assert not single[5], "a class without candidates"
    assert 0 < len(single[2]) < 13 // 2 < len(single[4]), "a class that cannot fill its half of 13, and one that can take more"
    assert len({candidate.area for candidate in single[4]}) <= len(single[4]) // 2, "ties"
    assert any(meets_at_a_corner(candidate.pixels) for candidate in single[4])
    pairs = {(candidate.class_id, candidate.source) for candidate in every(parts)}
    assert len(pairs) < len(every(parts)), "several of a class in one image"
    assert any(len(blocks.offered(INSTANCES[4]._replace(min_area=1), 1)[c]) > len(parts[c]) for c in (5, 1)), "parts too small"
    assert early & late, "images of two steps"
