"""What layout a folder of images and labels has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eircli.common.errors import UserError
from eircli.common.io import write_text
from eircli.common.progress import track
from eircli.common.types import BACKGROUND, IGNORE
from eircli.config.tree import load_yaml
from eircli.data.files import image_endings, opened_image

HELD_OUT = 5
"""Every how many-th training image is tested on where there are no images to test on."""

TRAINING, TESTING = ("training", "train"), ("validation", "val", "valid", "testing", "test")
IMAGES, MASKS = ("images", "imgs", "image", "JPEGImages"), ("masks", "mask", "labels", "annotations", "SegmentationClass", "gt")


@dataclass(frozen=True)
class Recognised:
    """A folder's layout, and the settings that read it."""

    layout: str
    """In words."""
    dataset: dict[str, object]
    """The manifest's section `dataset`."""
    notes: list[str] = field(default_factory=list)
    """What was decided for the user."""


def recognise(folder: Path) -> Recognised:
    """The layout of a folder. Nothing is written, and no image is read.

    Raises:
        UserError: there is no such folder, or nothing in it is known.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    for look in (_colour_masks, _voc, _splits, _cvat, _yolo, _json, _masks):
        if (found := look(folder)) is not None:
            return found
    raise UserError(
        f"{folder}: no layout that is known: neither images/training and annotations/training, nor VOC's devkit, nor a folder images "
        "beside a folder masks, nor annotations of COCO, LabelMe, YOLO or CVAT"
    )


def _voc(folder: Path) -> Recognised | None:
    for root in (folder, folder / "VOC2012", folder / "VOCdevkit/VOC2012"):
        if not all((root / name).is_dir() for name in ("JPEGImages", "ImageSets/Segmentation")):
            continue
        augmented = (root / "SegmentationClassAug").is_dir() and (root / "ImageSets/Segmentation/train_aug.txt").is_file()
        if augmented:
            return Recognised("PASCAL VOC's devkit, with SBD's labels", {"kind": "voc", "root": str(root)})
        note = f"trains on VOC's own images alone; eir prepare-data voc --root {root} adds SBD's labels, as published results have them"
        return Recognised("PASCAL VOC's devkit", {"kind": "voc", "root": str(root), "train_list": "train"}, [note])
    return None


def _splits(folder: Path) -> Recognised | None:
    """images/SPLIT and annotations/SPLIT; or images and annotations without splits."""
    for root in (folder, folder / "ADEChallengeData2016"):
        images, labels = root / "images", root / "annotations"
        splits = {path.name for path in _folders(images)} & {path.name for path in _folders(labels)}
        named = [next((name for name in names if name in splits), None) for names in (TRAINING, TESTING)]
        train, test = named[0], named[1]
        if train is None and (_holds_images(images) and any(labels.glob("*.png"))):
            train, test = ".", None
        if train is None:
            continue
        if not (root / "classes.txt").exists() and ((root / "objectInfo150.txt").exists() or root.name == "ADEChallengeData2016"):
            return Recognised("ADE20K's scene parsing benchmark", {"kind": "ade20k", "root": str(root)})
        dataset: dict[str, object] = {"kind": "folder", "root": str(root)}
        dataset |= {} if train == "training" else {"train_split": train}
        if test is None:
            note = f"no images to test on: every {HELD_OUT}th training image is held out of training and tested on (dataset.hold_out)"
            dataset |= {"val_split": train, "hold_out": HELD_OUT}
            return Recognised("a folder of images and annotations", dataset, [note])
        dataset |= {} if test == "validation" else {"val_split": test}
        return Recognised("a folder of images and annotations, in splits", dataset)
    return None


def _colour_masks(folder: Path) -> Recognised | None:
    """CVAT's "segmentation mask 1.1", and others with a labelmap.txt."""
    lists = sorted(path.stem for path in (folder / "ImageSets/Segmentation").glob("*.txt"))
    if not (folder / "labelmap.txt").is_file() or not lists:
        return None
    train, test = (next((name for name in names if name in lists), None) for names in ((*TRAINING, "default"), TESTING))
    dataset: dict[str, object] = {"kind": "masks", "root": str(folder), "train": train or lists[0]}
    dataset |= {"objects": "SegmentationObject"} if _holds_images(folder / "SegmentationObject") else {}
    return _with_test("colour masks with a labelmap.txt", dataset, test)


def _cvat(folder: Path) -> Recognised | None:
    for path in sorted(folder.glob("*.xml")):
        with path.open("rb") as file:
            if b"<annotations" in file.read(4096):
                raise UserError(
                    f"{path}: is CVAT's own format, which eir does not read; export as COCO 1.0 or Segmentation mask 1.1"
                )
    return None


def _yolo(folder: Path) -> Recognised | None:
    for path in sorted(folder.glob("*.y*ml")):
        described = load_yaml(path)
        if "names" not in described or not (any(folder.glob("labels/**/*.txt")) or any(folder.glob("*/labels/*.txt"))):
            continue
        dataset: dict[str, object] = {
            "kind": "yolo",
            "root": str(folder),
            **({} if path.name == "data.yaml" else {"data": path.name}),
        }
        what = f"YOLO's labels ({path.name})"
        return Recognised(what, dataset) if described.get("val") else _with_test(what, dataset, None)
    return None


def _json(folder: Path) -> Recognised | None:
    """COCO's one file for many images, or LabelMe's one for each."""
    coco: list[Path] = []
    for path in sorted([*folder.glob("*.json"), *folder.glob("annotations/*.json"), *folder.glob("*/*.json")])[:50]:
        content = path.read_bytes()
        if b'"categories"' in content and b'"annotations"' in content:
            coco += [] if path in coco else [path]
        elif b'"shapes"' in content and b'"imagePath"' in content:
            return _labelme(folder, path)
    return _coco(folder, coco) if coco else None


def _labelme(folder: Path, example: Path) -> Recognised:
    named = [next((name for name in names if any((folder / name).glob("*.json"))), None) for names in (TRAINING, TESTING)]
    train = named[0] or example.parent.relative_to(folder).as_posix()
    dataset: dict[str, object] = {"kind": "labelme", "root": str(folder), **({} if train == "." else {"train": train})}
    return _with_test(f"LabelMe's annotations ({example.relative_to(folder)} …)", dataset, named[1] if named[0] else None)


def _coco(folder: Path, files: list[Path]) -> Recognised:
    """Training and test file by the words in their names; where their images lie."""
    test = next((path for path in files if any(word in str(path.relative_to(folder)) for word in TESTING)), None)
    train = next((path for path in files if path != test), files[0])
    dataset: dict[str, object] = {"kind": "coco", "root": str(folder), "train": train.relative_to(folder).as_posix()}
    images = _images_of(folder, train)
    dataset |= {} if images is None else {"train_images": images}
    if test is not None and test != train and (tested := _images_of(folder, test)) is not None:
        dataset["val_images"] = tested
    where = None if test in (None, train) else test
    return _with_test(
        f"COCO's annotations ({dataset['train']})", dataset, None if where is None else where.relative_to(folder).as_posix()
    )


def _images_of(folder: Path, annotations: Path) -> str | None:
    """The folder, in `folder`, of the images that a COCO file names; None if it is the file's own, or unknown."""
    try:
        name = json.loads(annotations.read_bytes())["images"][0]["file_name"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None  # what is wrong with the file is said when it is read
    if (annotations.parent / name).is_file():
        return None
    places = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    found = next((place for place in places if (place / name).is_file()), None)
    return None if found is None else found.relative_to(folder).as_posix()


def _masks(folder: Path) -> Recognised | None:
    images = next((folder / name for name in IMAGES if _holds_images(folder / name)), None)
    masks = next((folder / name for name in MASKS if _holds_images(folder / name)), None)
    if images is None or masks is None:
        return None
    raise UserError(
        f"{folder}: images in {images.name} and masks in {masks.name}: name these folders images and annotations (masks of class ids), "
        "or add a labelmap.txt and ImageSets/Segmentation (masks of colours)"
    )


def _with_test(layout: str, dataset: dict[str, object], test: str | None) -> Recognised:
    """With the part to test on; without one, every few images are taken for it."""
    if test is not None:
        return Recognised(layout, dataset | {"val": test})
    note = f"no images to test on: every {HELD_OUT}th image is taken out of training and tested on (dataset.val_every)"
    return Recognised(layout, dataset | {"val_every": HELD_OUT}, [note])


def _folders(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if entry.is_dir()] if path.is_dir() else []


def _holds_images(path: Path) -> bool:
    return path.is_dir() and any(entry.suffix.lower() in image_endings() for entry in path.iterdir())


def make_up_names(root: Path) -> list[str]:
    """Write classes.txt for a folder data set that has none, with a name for every id up to the largest in its labels.

    Raises:
        UserError: no label holds a class.
    """
    files = sorted((root / "annotations").rglob("*.png"))
    largest = max((i for ids in track(map(_ids, files), "reading labels", len(files), "labels") for i in ids), default=0)
    if not largest:
        raise UserError(f"{root / 'annotations'}: no label holds a class id from 1 to 254")
    names = [f"class-{class_id}" for class_id in range(1, largest + 1)]
    write_text(root / "classes.txt", "".join(f"{name}\n" for name in names))
    return names


def _ids(path: Path) -> Iterator[int]:
    """The class ids in a label; none in one that a check will find faulty."""
    try:
        with opened_image(path) as file:
            values = np.array(file) if file.mode in ("L", "P", "1") else np.zeros(0, np.uint8)
    except UserError:
        return
    yield from (i for i in np.unique(values).tolist() if BACKGROUND < i < IGNORE)
