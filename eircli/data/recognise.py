"""What layout a folder of images and labels has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eircli.common.errors import UserError
from eircli.common.io import write_text
from eircli.common.progress import track
from eircli.common.types import BACKGROUND, IGNORE
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
    for look in (_voc, _splits, _cvat, _yolo, _json, _masks):
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


def _cvat(folder: Path) -> Recognised | None:
    for path in sorted(folder.glob("*.xml")):
        with path.open("rb") as file:
            if b"<annotations" in file.read(4096):
                return Recognised(f"CVAT's annotations ({path.name})", {"kind": "cvat", "root": str(folder)})
    return None


def _yolo(folder: Path) -> Recognised | None:
    described = [path for path in sorted(folder.glob("*.y*ml")) if "names:" in path.read_text(encoding="utf-8", errors="replace")]
    if described and (any(folder.glob("labels/**/*.txt")) or any(folder.glob("*/labels/*.txt"))):
        return Recognised(f"YOLO's labels ({described[0].name})", {"kind": "yolo", "root": str(folder)})
    return None


def _json(folder: Path) -> Recognised | None:
    """COCO's one file for many images, or LabelMe's one for each."""
    for path in sorted([*folder.glob("*.json"), *folder.glob("annotations/*.json"), *folder.glob("*/*.json")])[:50]:
        content = path.read_bytes()
        if b'"categories"' in content and b'"annotations"' in content:
            return Recognised(f"COCO's annotations ({path.relative_to(folder)})", {"kind": "coco", "root": str(folder)})
        if b'"shapes"' in content and b'"imagePath"' in content:
            return Recognised(f"LabelMe's annotations ({path.relative_to(folder)} …)", {"kind": "labelme", "root": str(folder)})
    return None


def _masks(folder: Path) -> Recognised | None:
    images = next((folder / name for name in IMAGES if _holds_images(folder / name)), None)
    masks = next((folder / name for name in MASKS if _holds_images(folder / name)), None)
    if images is None or masks is None:
        return None
    return Recognised(f"images in {images.name} and masks in {masks.name}", {"kind": "masks", "root": str(folder)})


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
