"""YOLO segmentation: polygons in a text file for each image, names and parts in data.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from eircli.common.errors import UserError
from eircli.common.types import DataSet, InstanceMap, UInt8Array
from eircli.config.datasets import Yolo
from eircli.data.annotated import AnnotatedSplit, Foreign, check_root, checked, data_set, image_name, portable
from eircli.data.class_names import Picked, pick
from eircli.data.files import images_by_name, read_lines, unreadable
from eircli.data.outlines import AnnotatedObject, Polygons, label_map, paint, require_outlines
from eircli.data.resize import Size

IMAGES, LABELS = "images", "labels"
"""The folders of images and of their text files."""


class DataFile(Foreign):
    """What is read of data.yaml."""

    names: list[str] | dict[int, str]
    train: str | list[str]
    val: str | list[str] | None = None
    nc: int | None = None


def class_names(config: Yolo) -> tuple[str, ...]:
    """The classes that the settings pick, or else those of data.yaml, by their numbers.

    Raises:
        UserError: data.yaml is missing, or has no names.
    """
    return config.classes or _names(config.root / config.data, _read_yaml(config.root / config.data))


def yolo(config: Yolo) -> DataSet:
    """The images of data.yaml's `train` and `val`, which count from the root; an image without a text file holds no object.

    Raises:
        UserError: a file or folder is missing, or not in the format.
    """
    check_root(config.root, "the folder with data.yaml")
    require_outlines()
    path = config.root / config.data
    content = _read_yaml(path)
    picked = pick(_names(path, content), config.classes, path)
    if config.val_every is None and not content.val:
        raise UserError(f"{path}: has no val; add it, or give dataset.val_every: N, to take every N-th training image for it")
    train = YoloSplit(_images(config, "train", content.train), picked)
    if config.val_every is not None or not content.val:
        return data_set(config, picked, train, None)
    return data_set(config, picked, train, YoloSplit(_images(config, "val", content.val), picked))


class YoloSplit(AnnotatedSplit):
    """Images and their text files: in `labels` where an image is in `images`, else beside it."""

    def __init__(self, images: dict[str, Path], picked: Picked) -> None:
        super().__init__(images, picked)
        self.labels = [_label_file(image) for image in self.images]
        if not any(label.is_file() for label in self.labels):
            raise UserError(f"{self.labels[0]}: missing, and so are the labels of all images beside it; check dataset.root")

    def sources(self, index: int) -> Sequence[Path | bytes]:
        return [self.labels[index]] if self.labels[index].is_file() else [b"no objects"]

    def read(self, index: int) -> Fractions:
        return Fractions(self.labels[index], self.picked)


@dataclass(frozen=True)
class Fractions:
    """The polygons of a text file, which are in fractions of the image's width and height; the image's size is not recorded."""

    path: Path
    picked: Picked
    size: None = None

    @property
    def name(self) -> str:
        return str(self.path)

    def label(self, size: Size) -> UInt8Array:
        """uint8 [H, W], class ids, of an image of `size`."""
        return label_map(self.instances(size))

    def instances(self, size: Size) -> InstanceMap:
        """The same with objects told apart, int32 [H, W]."""
        text = _read_text(self.path) if self.path.is_file() else ""
        lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
        return paint([self._object(words, f"{self.path}: line {number}", size) for number, words in lines], size)

    def _object(self, words: Sequence[str], name: str, size: Size) -> AnnotatedObject:
        try:
            number, corners = int(words[0]), np.array(words[1:], np.float64)
        except ValueError:
            number, corners = -1, np.array([np.nan])
        if number < 0 or not np.isfinite(corners).all() or len(corners) % 2:
            raise UserError(f"{name}: is no class number followed by x and y of every corner; export it as YOLO segmentation")
        if len(corners) < 6:
            raise UserError(f"{name}: holds {len(corners)} numbers after the class, a box or less; a polygon needs 6 or more")
        if number >= len(self.picked.table) - 1:
            raise UserError(
                f"{name}: class {number}, but the names have the numbers 0 to {len(self.picked.table) - 2}; add its name"
            )
        return AnnotatedObject(int(self.picked.table[number + 1]), Polygons([corners.reshape(-1, 2) * size]), name)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from None


def _read_yaml(path: Path) -> DataFile:
    try:
        content = yaml.safe_load(_read_text(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is no YAML ({' '.join(str(error).split())})") from None
    return checked(DataFile, content, path, "write names, train and val as YOLO has them")


def _names(path: Path, content: DataFile) -> tuple[str, ...]:
    """The names by number: a list, or a mapping of the numbers 0, 1, …"""
    names = content.names
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise UserError(f"{path}: names must have the numbers 0 to {len(names) - 1}, without gaps")
        names = [names[number] for number in range(len(names))]
    if content.nc not in (None, len(names)):
        raise UserError(f"{path}: nc is {content.nc}, but there are {len(names)} names; correct one of them")
    return tuple(names)


def _images(config: Yolo, part: str, given: str | list[str]) -> dict[str, Path]:
    """The images of a part, by name: of a folder, a file that lists them, or several of these."""
    path = config.root / config.data
    found: dict[str, Path] = {}
    for place in [given] if isinstance(given, str) else given:
        for name, image in _images_in(config.root, portable(place), f"{path}: {part}").items():
            if name in found:
                raise UserError(f"{image}: has the same name as {found[name]}; rename one of them")
            found[name] = image
    if not found:
        raise UserError(f"{path}: {part}: holds no image")
    return found


def _images_in(root: Path, place: str, key: str) -> dict[str, Path]:
    where = root / place
    if not where.exists() and place.startswith("../"):
        where = root / place.removeprefix("../")  # as exported by some tools, and read by YOLO's own program
    if where.is_dir():
        return images_by_name(where, recursive=True)
    if not where.is_file():
        raise UserError(f"{key}: {where} is neither a folder nor a file; it counts from dataset.root")
    listed = [portable(line) for line in read_lines(where)]
    found = {image_name(line): (where.parent if line.startswith("./") else root) / line for line in listed}
    if len(found) < len(listed):
        raise UserError(f"{where}: lists two images of one name; drop one of them")
    if missing := [image for image in found.values() if not image.is_file()]:
        raise UserError(f"{missing[0]}: missing, listed in {where} ({len(missing)} such images); paths count from dataset.root")
    return found


def _label_file(image: Path) -> Path:
    """The text file of an image: with the last folder `images` of its path as `labels`."""
    parts = list(image.parts)
    folders = [place for place, part in enumerate(parts[:-1]) if part == IMAGES]
    if folders:
        parts[folders[-1]] = LABELS
    return Path(*parts).with_suffix(".txt")
