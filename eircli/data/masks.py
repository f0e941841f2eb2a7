"""Colour masks with a labelmap.txt: CVAT's "segmentation mask 1.1", and others in PASCAL VOC's folders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eircli.common.errors import UserError
from eircli.common.types import BACKGROUND, IGNORE, Colour, DataSet, InstanceMap, Int32Array, UInt8Array
from eircli.config.datasets import Masks
from eircli.data.annotated import AnnotatedSplit, check_root, data_set, portable
from eircli.data.class_names import Picked, pick
from eircli.data.files import images_by_name, opened_image, read_lines
from eircli.data.resize import Size

NO_CLASS = "background"

BLACK: Colour = (0, 0, 0)

VOID: Colour = (224, 224, 192)
"""PASCAL VOC's colour of rims and what is not judged."""


def class_names(config: Masks) -> tuple[str, ...]:
    """The classes that the settings pick, or else the map's, in its order.

    Raises:
        UserError: the map is missing, or no map.
    """
    return config.classes or _classes(config, read_label_map(config.root / config.labelmap))


def masks(config: Masks) -> DataSet:
    """The images of the training and validation lists, or of one list.

    Raises:
        UserError: a file or folder is missing, or not in the format; or a class is.
    """
    check_root(config.root, "the folder with labelmap.txt")
    path = config.root / config.labelmap
    colours = read_label_map(path)
    if missing := [name for name in config.ignore if name not in colours]:
        raise UserError(f"dataset.ignore: '{missing[0]}' is not in {path}")
    names = _classes(config, colours)
    picked = pick(names, config.classes, path)
    labels = {BLACK: BACKGROUND, VOID: IGNORE}
    labels |= {colours[name]: int(picked.table[position]) for position, name in enumerate(names, start=1)}
    labels |= dict.fromkeys((colours[name] for name in config.ignore), IGNORE)
    if NO_CLASS in colours:
        labels[colours[NO_CLASS]] = BACKGROUND
    train = _split(config, config.train, picked, labels)
    return data_set(config, picked, train, None if config.val is None else _split(config, config.val, picked, labels))


class MaskSplit(AnnotatedSplit):
    """Images and their colour masks.

    Args:
        masks, objects: the files of colours of classes and of objects, by the images' names.
        labels: the class id of each colour.
    """

    def __init__(
        self,
        images: dict[str, Path],
        masks: Mapping[str, Path],
        objects: Mapping[str, Path] | None,
        picked: Picked,
        labels: Mapping[Colour, int],
    ) -> None:
        super().__init__(images, picked)
        self.masks = [masks[name] for name in self.ids]
        self.objects = None if objects is None else [objects[name] for name in self.ids]
        self.labels = Colours.of(labels)

    def sources(self, index: int) -> Sequence[Path | bytes]:
        known = repr((self.labels.codes.tolist(), self.labels.ids.tolist())).encode()
        return (known, self.masks[index], *([] if self.objects is None else [self.objects[index]]))

    def read(self, index: int) -> ColourMask:
        path = self.masks[index]
        codes = _codes(path)
        return ColourMask(path, self.labels.read(codes, path), None if self.objects is None else self.objects[index])


@dataclass(frozen=True)
class Colours:
    """Colours and the class ids that they stand for."""

    codes: Int32Array
    """int32 [colours], ascending: 65536 red + 256 green + blue."""
    ids: UInt8Array
    """uint8 [colours]."""

    @staticmethod
    def of(labels: Mapping[Colour, int]) -> Colours:
        """From a mapping."""
        pairs = sorted((_code(colour), label) for colour, label in labels.items())
        return Colours(np.array([code for code, _ in pairs], np.int32), np.array([label for _, label in pairs], np.uint8))

    def read(self, codes: Int32Array, path: Path) -> UInt8Array:
        """Class ids uint8 [H, W] of colours int32 [H, W].

        Raises:
            UserError: a colour that is not known.
        """
        places = np.searchsorted(self.codes, codes).clip(max=len(self.codes) - 1)
        if (unknown := self.codes[places] != codes).any():
            row, column = (int(place) for place in np.argwhere(unknown)[0])
            code = int(codes[row, column])
            raise UserError(
                f"{path}: colour {code >> 16},{code >> 8 & 255},{code & 255} at column {column}, row {row} is not in labelmap.txt "
                f"({int(unknown.sum())} such pixels); add its line, or save the mask without smoothing and not as JPEG"
            )
        return np.asarray(self.ids[places])


@dataclass(frozen=True)
class ColourMask:
    """A mask's class ids, and the file that tells objects apart."""

    path: Path
    ids: UInt8Array
    objects: Path | None

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def size(self) -> Size:
        """Its width and height."""
        return self.ids.shape[1], self.ids.shape[0]

    def label(self, size: Size) -> UInt8Array:
        """uint8 [H, W], class ids."""
        return self.ids

    def instances(self, size: Size) -> InstanceMap:
        """Objects told apart, int32 [H, W]: each colour is one, of the class that most of its pixels have."""
        assert self.objects is not None, "the manifest has asked the settings"
        codes = _codes(self.objects)
        if codes.shape != self.ids.shape:
            raise UserError(f"{self.objects}: is of another size than {self.path}; export both again")
        colours, numbers = np.unique(codes, return_inverse=True)
        none = np.isin(colours, [_code(BLACK), _code(VOID)])
        votes = np.zeros((len(colours), 256), np.int64)
        np.add.at(votes, (numbers.ravel(), self.ids.ravel()), 1)
        labels = votes.argmax(axis=1).astype(np.uint8)
        labels[none] = BACKGROUND
        # An object's colour may reach beyond its class's pixels, where another lies on top.
        seen = ~none[numbers] & (labels[numbers] == self.ids)
        return InstanceMap(np.where(seen.reshape(codes.shape), numbers.reshape(codes.shape) + 1, 0).astype(np.int32), labels)


def read_label_map(path: Path) -> dict[str, Colour]:
    """The colours of a labelmap.txt by name, in its order; `#` begins a comment.

    Raises:
        UserError: a line that is no name with a colour; two names, or two colours, alike.
    """
    found: dict[str, Colour] = {}
    for line in read_lines(path):
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"([^:]+):(\d+),\s*(\d+),\s*(\d+)(:.*)?", line)
        if match is None or max(colour := (int(match[2]), int(match[3]), int(match[4]))) > 255:
            raise UserError(f"{path}: '{line}': expected name:red,green,blue, such as car:128,0,0::")
        name = match[1].strip()
        if name in found or colour in found.values():
            raise UserError(f"{path}: '{line}': its name or its colour stands there already; give every class its own")
        found[name] = colour
    if not found:
        raise UserError(f"{path}: names no colour")
    return found


def _classes(config: Masks, colours: Mapping[str, Colour]) -> tuple[str, ...]:
    return tuple(name for name in colours if name != NO_CLASS and name not in config.ignore)


def _split(config: Masks, name: str, picked: Picked, labels: Mapping[Colour, int]) -> MaskSplit:
    path = config.root / "ImageSets" / "Segmentation" / f"{name}.txt"
    listed = list(dict.fromkeys(portable(line.split()[0] if len(line.split()) == 1 else line) for line in read_lines(path)))
    if not listed:
        raise UserError(f"{path}: lists no image")
    folders = [config.images, config.labels, *([] if config.objects is None else [config.objects])]
    files = [_files(config.root / folder, listed, path) for folder in folders]
    return MaskSplit(files[0], files[1], files[2] if len(files) > 2 else None, picked, labels)


def _files(folder: Path, listed: Sequence[str], path: Path) -> dict[str, Path]:
    """The listed names' files in a folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check dataset.root, images, labels and objects")
    there = images_by_name(folder, recursive=True)
    if missing := [name for name in listed if name not in there]:
        raise UserError(f"{folder / missing[0]}.*: missing, listed in {path} ({len(missing)} such files)")
    return {name: there[name] for name in listed}


def _code(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _codes(path: Path) -> Int32Array:
    """The colours of a mask's pixels, int32 [H, W]: 65536 red + 256 green + blue."""
    with opened_image(path) as file:
        pixels: NDArray[np.int32] = np.array(file.convert("RGB")).astype(np.int32)
    return pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
