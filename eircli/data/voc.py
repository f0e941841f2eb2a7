"""PASCAL VOC 2012 with the augmented training labels, in the devkit's folders."""

from __future__ import annotations

import hashlib
from pathlib import Path

from eircli.common.errors import UserError
from eircli.common.types import DataSet, Split
from eircli.config.datasets import Voc
from eircli.data.files import FileSplit, read_lines

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

IMAGES = {"train": 1_464, "train_aug": 10_582, "val": 1_449}
"""How many images each list names."""

AUGMENTED, AUGMENTED_LABELS = "train_aug", "SegmentationClassAug"
"""The training images with SBD's among them, and the folder of their labels."""

_MAKE_IT = "make it with eir prepare-data voc --root DIR, or take VOC's own 1,464 images with --set dataset.train_list=train"


class IndexedSplit(FileSplit):
    """A split whose images' class ids are listed in a file; no label file is read for them."""

    def __init__(self, listed: dict[str, list[int]], images: list[Path], labels: list[Path]) -> None:
        super().__init__(list(listed), images, labels, len(CLASSES))
        self.listed = list(listed.values())

    def present(self, index: int) -> list[int]:
        return self.listed[index]

    def fingerprint(self) -> str:
        return hashlib.sha256(repr((self.ids, self.listed)).encode()).hexdigest()


def class_names(config: Voc) -> tuple[str, ...]:
    """The 20 classes."""
    return CLASSES


def voc(config: Voc) -> DataSet:
    """The devkit's train and val splits.

    The lists may hold bare ids or, as in the commonly used lists of train_aug, "/JPEGImages/x.jpg
    /SegmentationClassAug/x.png".
    """
    if config.class_index is None and not config.root.is_dir():
        raise UserError(f"dataset.root: {config.root} is no folder; set it to the VOC devkit's VOC2012 with --set dataset.root=…")
    return DataSet(CLASSES, _split(config, config.train_list), _split(config, config.val_list))


def remarks(config: Voc, data: DataSet) -> list[str]:
    """How the number of images differs from the published one; training on fewer images than published results do."""
    found = []
    for name, count in ((config.train_list, len(data.train)), (config.val_list, len(data.val))):
        if count != IMAGES.get(name, count):
            found.append(f"{config.root}: {name} lists {count:,} images, the published list {IMAGES[name]:,}")
    if len(data.train) == IMAGES["train"]:
        found.append(
            f"{config.root}: training on VOC's own {IMAGES['train']:,} images; published results train on the {IMAGES[AUGMENTED]:,} of "
            f"{AUGMENTED}, SBD's list, which eir prepare-data voc makes"
        )
    if config.train_list == AUGMENTED and config.labels == "SegmentationClass":
        found.append(f"{config.root}: {AUGMENTED} with the labels of SegmentationClass, which has them for 1,464 images alone")
    return found


def _split(config: Voc, name: str) -> Split:
    folder: str = config.labels
    if folder == "auto":
        folder = AUGMENTED_LABELS if name == AUGMENTED else "SegmentationClass"

    def files(ids: list[str]) -> tuple[list[Path], list[Path]]:
        return [config.root / "JPEGImages" / f"{i}.jpg" for i in ids], [config.root / folder / f"{i}.png" for i in ids]

    if config.class_index is not None:
        path = config.class_index / f"{name}.txt"
        listed = {line.split()[0]: _ids(line, path) for line in read_lines(path)}
        return IndexedSplit(listed, *files(list(listed)))
    path = config.root / "ImageSets" / "Segmentation" / f"{name}.txt"
    if name == AUGMENTED and not path.exists():
        raise UserError(f"{path}: missing: this list is SBD's, not VOC's; {_MAKE_IT}")
    rows = [line.split() for line in read_lines(path)]
    if not rows:
        raise UserError(f"{path}: lists no image")
    if widths := {len(row) for row in rows} - {1, 2}:
        raise UserError(f"{path}: a line holds {max(widths)} words; expected an id, or an image's and a label's path")
    if min(len(row) for row in rows) == 1 and not (config.root / folder).is_dir():
        raise UserError(
            f"{config.root / folder}: no such folder; {_MAKE_IT if folder == AUGMENTED_LABELS else 'check dataset.root'}"
        )
    ids = [Path(row[0]).stem for row in rows]
    images, labels = files(ids)
    for position, row in enumerate(rows):
        if len(row) == 2:
            images[position], labels[position] = (config.root / part.lstrip("/") for part in row)
    return FileSplit(ids, images, labels, len(CLASSES))


def _ids(line: str, path: Path) -> list[int]:
    try:
        ids = [int(word) for word in line.split()[1:]]
    except ValueError:
        ids = [-1]
    if any(not 0 <= i <= len(CLASSES) and i != 255 for i in ids):
        raise UserError(f"{path}: '{line}': expected an image's name and class ids 1..{len(CLASSES)}")
    return ids
