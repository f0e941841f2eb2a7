"""Annotation formats: label maps of real photographs, written in each and read back; outlines against a slow reference."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from eircli.common.types import IGNORE, DataSet, InstanceMap, KnowsInstances, UInt8Array
from eircli.config.datasets import Coco, Labelme, Masks, Yolo
from eircli.data.class_index import read_class_index
from eircli.data.open import class_names, open_dataset
from eircli.data.outlines import AnnotatedObject, Bitmap, Polygons, Region, RunLengths, fill, label_map, paint, run_lengths
from tests.format_writers import Scene, objects_of, write_coco, write_labelme, write_masks, write_yolo

Parts = Mapping[str, Mapping[str, Scene]]


@pytest.fixture(scope="session")
def names(real_images: Path) -> dict[int, str]:
    """The photographs' classes by id."""
    return dict(enumerate((real_images / "msrc/classes.txt").read_text().split(), start=1))


@pytest.fixture(scope="session")
def parts(real_images: Path) -> Parts:
    """Some photographs with their labels."""
    found: dict[str, dict[str, Scene]] = {}
    for part, split, count in (("train", "training", 10), ("val", "validation", 3)):
        labels = sorted((real_images / f"msrc/annotations/{split}").iterdir())[:: 300 // count][:count]
        images = {label.stem: next((real_images / f"msrc/images/{split}").glob(f"{label.stem}.*")) for label in labels}
        found[part] = {label.stem: Scene(images[label.stem], np.array(Image.open(label))) for label in labels}
    return found


def read_coco(how: str) -> Callable[[Path, Parts, Mapping[int, str]], DataSet]:
    def read(root: Path, parts: Parts, names: Mapping[int, str]) -> DataSet:
        for part, scenes in parts.items():
            (root / part).mkdir()
            write_coco(root / f"{part}/instances.json", scenes, names, how)
        return open_dataset(Coco(kind="coco", root=root, train="train/instances.json", val="val/instances.json"))

    return read


def read_labelme(how: str) -> Callable[[Path, Parts, Mapping[int, str]], DataSet]:
    def read(root: Path, parts: Parts, names: Mapping[int, str]) -> DataSet:
        for part, scenes in parts.items():
            write_labelme(root / part, scenes, names, how)
        there = {int(i) for scenes in parts.values() for s in scenes.values() for i in np.unique(s.label)}
        classes = tuple(name for class_id, name in names.items() if class_id in there)
        return open_dataset(Labelme(kind="labelme", root=root, train="train", val="val", classes=classes))

    return read


def read_yolo(root: Path, parts: Parts, names: Mapping[int, str]) -> DataSet:
    write_yolo(root, parts, names)
    return open_dataset(Yolo(kind="yolo", root=root))


def read_masks(root: Path, parts: Parts, names: Mapping[int, str]) -> DataSet:
    write_masks(root, parts, names)
    return open_dataset(Masks(kind="masks", root=root, train="train", val="val", objects=Path("SegmentationObject")))


FORMATS = {
    "coco polygons": (read_coco("polygons"), False),
    "coco rle": (read_coco("rle"), True),
    "coco compressed rle": (read_coco("compressed"), True),
    "labelme polygons": (read_labelme("polygons"), False),
    "labelme masks": (read_labelme("masks"), True),
    "yolo": (read_yolo, False),
    "masks": (read_masks, True),
}
"""What writes and reads each, and whether that is exact."""


@pytest.mark.parametrize("format_", FORMATS)
def test_photographs_come_back_as_they_were(format_: str, tmp_path: Path, parts: Parts, names: dict[int, str]) -> None:
    read, exact = FORMATS[format_]
    data = read(tmp_path, parts, names)
    ids = {name: position for position, name in enumerate(data.classes, start=1)}
    own = np.arange(256, dtype=np.uint8)
    own[list(names)] = [ids.get(name, 0) for name in names.values()]
    own[IGNORE] = 0 if format_ == "yolo" else IGNORE
    for split, scenes in ((data.train, parts["train"]), (data.val, parts["val"])):
        assert split.ids == sorted(scenes)
        read_class_index(split, len(data.classes), workers=0)
        for position, name in enumerate(split.ids):
            expected, (image, found) = own[scenes[name].label], split.load(position)
            np.testing.assert_array_equal(image, np.array(Image.open(scenes[name].image).convert("RGB")))
            np.testing.assert_array_equal(split.load_label(position), found)
            different = found != expected
            if exact:
                assert not different.any()
            assert not (different & ~rim(expected)).any(), "up to the rim"
            assert different.mean() < 0.005
            assert isinstance(split, KnowsInstances)
            check_instances(split.load_instances(position), found)
            wanted = sorted((int(own[i]), int(mask.sum())) for i, mask in objects_of(scenes[name].label))
            if exact:
                known = split.load_instances(position)
                areas = np.bincount(known.numbers.ravel(), minlength=len(known.labels) + 1)[1:]
                seen = [(int(i), int(a)) for i, a in zip(known.labels, areas, strict=True) if a and 0 < i < IGNORE]
                assert sorted(seen) == wanted


def check_instances(instances: InstanceMap, label: UInt8Array) -> None:
    """The instances make the label, except where the format has labels without an object."""
    made = label_map(instances)
    covered = instances.numbers > 0
    np.testing.assert_array_equal(made[covered], label[covered])
    assert set(np.unique(label[~covered])) <= {0, IGNORE}


def rim(label: UInt8Array) -> NDArray[np.bool_]:
    """Where a pixel or one of its eight neighbours has another label, or the image ends."""
    padded = np.pad(label.astype(int), 1, constant_values=-1)
    views = [padded[r : r + label.shape[0], c : c + label.shape[1]] for r in range(3) for c in range(3)]
    return np.asarray(np.any([view != label for view in views], axis=0))


def inside(corners: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixel by pixel: whether its centre lies within a polygon, by counting crossings of a ray to the right."""
    mask = np.zeros(size[::-1], bool)
    for row, column in np.ndindex(mask.shape):
        x, y = column + 0.5, row + 0.5
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            if (y0 > y) != (y1 > y) and x < x0 + (x1 - x0) * (y - y0) / (y1 - y0):
                mask[row, column] ^= True
    return mask


def distance(corners: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Of every pixel's centre from a polygon's outline."""
    centres = np.stack(np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5), axis=-1)
    least = np.full(size[::-1], np.inf)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = end - start
        share = np.clip((centres - start) @ along / max(along @ along, 1e-12), 0, 1)
        least = np.minimum(least, np.linalg.norm(centres - start - share[..., None] * along, axis=-1))
    return least


def whole(region: Region, size: tuple[int, int]) -> NDArray[np.bool_]:
    mask, window = fill(AnnotatedObject(1, region, "x"), size)
    canvas = np.zeros(size[::-1], bool)
    canvas[window] = mask
    return canvas


@given(seed=st.integers(0, 10_000))
def test_polygons_hold_the_pixels_whose_centres_they_hold(seed: int) -> None:
    random = np.random.default_rng(seed)
    size = (int(random.integers(3, 24)), int(random.integers(3, 24)))
    corners = random.uniform(-6, 30, (random.integers(3, 8), 2))
    different = whole(Polygons([corners]), size) != inside(corners, size)
    assert not different.any() or distance(corners, size)[different].max() < 0.3


@given(seed=st.integers(0, 10_000))
def test_run_lengths_are_pycocotools(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 40, 2).tolist()
    mask = random.random((height, width)) < random.random()
    grain = int(random.integers(1, 5))
    mask = mask.repeat(grain, 0).repeat(grain, 1)
    text = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    np.testing.assert_array_equal(whole(RunLengths(run_lengths(text), mask.shape[::-1]), mask.shape[::-1]), mask)


@given(seed=st.integers(0, 10_000))
def test_smaller_objects_lie_on_top(seed: int) -> None:
    random = np.random.default_rng(seed)
    size, objects, masks = (14, 11), [], []
    for number in range(random.integers(0, 6)):
        mask, (left, top) = random.random(random.integers(1, 9, 2)) < 0.8, random.integers(-4, 14, 2).tolist()
        objects.append(AnnotatedObject(number + 1, Bitmap(mask, left, top), "x", lowest=bool(random.random() < 0.3)))
        canvas = np.zeros(size[::-1], bool)
        for (row, column), value in np.ndenumerate(mask):
            if 0 <= row + top < size[1] and 0 <= column + left < size[0]:
                canvas[row + top, column + left] = value
        masks.append(canvas)
    found = paint(objects, size).numbers
    for row, column in np.ndindex(found.shape):
        there = [k for k in range(len(objects)) if masks[k][row, column]]
        top_one = min(there, key=lambda k: (objects[k].lowest, masks[k].sum(), -k), default=-1)
        assert found[row, column] == top_one + 1


def test_classes_have_the_formats_order_and_some_may_be_picked(tmp_path: Path) -> None:
    image = tmp_path / "i.png"
    Image.new("RGB", (8, 6)).save(image)
    label = np.zeros((6, 8), np.uint8)
    label[:3], label[3:5] = 7, 2
    names, one = {7: "ant", 2: "cow", 5: "bee"}, {name: Scene(image, label) for name in "ab"}
    for folder in ("c", "m"):
        (tmp_path / folder).mkdir()
    write_coco(tmp_path / "c/a.json", one, names, "polygons")
    write_labelme(tmp_path / "l", one, names)
    write_yolo(tmp_path / "y", {"train": one, "val": one}, names)
    write_masks(tmp_path / "m", {"default": one}, names)
    given: list[tuple[Any, dict[str, Any], tuple[str, ...]]] = [
        (Coco, {"kind": "coco", "root": tmp_path / "c", "train": "a.json", "val_every": 2}, ("cow", "bee", "ant")),
        (Labelme, {"kind": "labelme", "root": tmp_path / "l", "val_every": 2}, ("ant", "cow")),
        (Yolo, {"kind": "yolo", "root": tmp_path / "y"}, ("ant", "cow", "bee")),
        (Masks, {"kind": "masks", "root": tmp_path / "m", "train": "default", "val_every": 2}, ("ant", "cow", "bee")),
    ]
    for settings, values, order in given:
        config = settings(**values)
        data = open_dataset(config)
        assert data.classes == class_names(config) == order
        assert (data.train.ids, data.val.ids) == ((["a", "b"], ["a", "b"]) if settings is Yolo else (["a"], ["b"]))
        ids = np.zeros(8, np.uint8)
        ids[[7, 2]] = order.index("ant") + 1, order.index("cow") + 1
        np.testing.assert_array_equal(data.train.load_label(0), ids[label])
        ids[[7, 2]] = 0, 1
        picked = settings(**values, classes=("cow",))
        assert open_dataset(picked).classes == class_names(picked) == ("cow",)
        np.testing.assert_array_equal(open_dataset(picked).train.load_label(0), ids[label])
        assert open_dataset(picked).train.fingerprint() != data.train.fingerprint()
