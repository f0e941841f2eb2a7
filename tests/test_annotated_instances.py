"""Annotated objects as candidates for the memory: whole where they are seen, of the step's classes alone."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from eircli.common.errors import UserError
from eircli.common.types import IGNORE, InstanceMap
from eircli.config.datasets import Coco
from eircli.data.open import open_dataset
from eircli.data.resize import resize_label
from eircli.data.step_view import StepView
from eircli.memory.bank import Bank
from eircli.memory.harvest import WHOLE_CLASS, Candidate, candidate_mask, instance_candidates
from eircli.run.run import open_run
from eircli.stages.build_memory import build_memory
from tests.format_writers import coco_region

TINY = Path(__file__).parent / "tiny.yaml"
SIDE = 40


def square(top: int, left: int, side: int) -> NDArray[np.bool_]:
    mask = np.zeros((SIDE, SIDE + 8), bool)
    mask[top : top + side, left : left + side] = True
    return mask


SCENE = [
    (1, square(2, 2, 20)),  # touches the next
    (1, square(2, 22, 16)),
    (2, square(8, 8, 6)),  # in the middle of the first
    (3, square(26, 2, 12)),
    (4, square(26, 30, 12)),
    (2, square(39, 46, 3)),  # a pixel or two
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """COCO files of twelve images, all with the same objects."""
    content: dict[str, list[dict[str, object]]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": 10 * number, "name": name} for number, name in enumerate("abcd", start=1)]
    for image in range(12):
        noise = np.random.default_rng(image).integers(0, 256, (SIDE, SIDE + 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{image:02}.png")
        content["images"].append({"id": image, "file_name": f"{image:02}.png", "width": SIDE + 8, "height": SIDE})
        for class_id, mask in SCENE:
            entry = {"id": len(content["annotations"]), "image_id": image, "category_id": 10 * class_id}
            content["annotations"].append(entry | {"segmentation": coco_region(mask, "compressed")})
    (tmp_path / "all.json").write_text(json.dumps(content))
    return tmp_path


def visible() -> list[NDArray[np.bool_]]:
    """By hand: of each object in turn what smaller ones leave."""
    first = SCENE[0][1] & ~SCENE[2][1]
    return [first, *(mask for _, mask in SCENE[1:])]


def test_objects_are_whole_where_they_are_seen_at_any_size(root: Path) -> None:
    split = open_dataset(Coco(kind="coco", root=root, train="all.json", val_every=4)).train
    table = np.zeros(256, np.uint8)
    table[[1, 2, IGNORE]] = 5, 6, IGNORE
    for side in (None, 20, 33):
        view = StepView(split, np.array([1]), table, side)
        numbers, channels = view.load_instances(0)
        assert channels.tolist() == [5, 5, 6, 0, 0, 6]
        for number, mask in enumerate(visible(), start=1):
            expected = resize_label(mask.astype(np.uint8), side).astype(bool)
            np.testing.assert_array_equal(numbers == number, expected)
        label = view.load_label(0)
        found = instance_candidates(InstanceMap(numbers, channels), [5, 6], 3, min_area=9)
        assert [(c.channel, c.image, c.component) for c in found] == [(5, 3, 1), (5, 3, 2), (6, 3, 3)]
        for candidate in found:
            mask = candidate_mask(label, candidate, InstanceMap(numbers, channels))
            assert candidate.area == mask.sum()
            assert (label[mask] == candidate.channel).all()
        whole = candidate_mask(label, Candidate(6, 0, WHOLE_CLASS, 1), InstanceMap(numbers, channels))
        np.testing.assert_array_equal(whole, label == 6)


@pytest.mark.parametrize("method", ["{name: eir, slot: 16}", "{name: eir-plus, slot: 16}"])
def test_the_bank_holds_annotated_objects(root: Path, tmp_path: Path, method: str) -> None:
    data = f"dataset={{kind: coco, root: {root}, train: all.json, val_every: 4}}"
    memory = "memory={selection: instance, min_area: 9, budget: 200, encoding: png}"
    run = open_run(TINY, [data, memory, f"method={method}", "protocol={schedule: '2-1'}"], tmp_path / "run")
    with run.locked():
        build_memory(run, 2, print)
    bank = Bank(run.directory.bank(2))
    assert bank.facts["selection"] == "instance"
    assert bank.per_class() == {1: 18, 2: 9, 3: 9}, "two of class 1 in each of nine images; the sliver of class 2 is too small"
    if "plus" in method:
        return
    train = run.dataset.train
    found = {(e.class_id, e.source, e.box): e for e in (bank.load(position) for position in range(len(bank)))}
    for (class_id, _), mask in zip(SCENE[:4], visible()[:4], strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
        for position, name in enumerate(train.ids):
            one = found[(class_id, name, box)]  # type: ignore[index]
            np.testing.assert_array_equal(one.mask, mask[one.box.window])
            np.testing.assert_array_equal(one.image[one.mask], train.load(position).image[mask])


def test_data_sets_without_objects_are_refused(tmp_path: Path) -> None:
    for data in ("{kind: shapes}", "{kind: masks, root: x, val_every: 2}", "{kind: folder, root: x}"):
        with pytest.raises(UserError, match=r"memory\.selection instance needs annotations that tell objects apart") as error:
            open_run(TINY, [f"dataset={data}", "memory.selection=instance"], tmp_path / "run")
        assert "\n" not in str(error.value)
    for data in ("{kind: masks, root: x, val_every: 2, objects: SegmentationObject}", "{kind: yolo, root: x}"):
        open_run(TINY, [f"dataset={data}", "memory.selection=instance"], tmp_path / "run")
