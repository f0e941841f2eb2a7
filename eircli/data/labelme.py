"""LabelMe annotations: a JSON file for each image, objects by polygons, rectangles, circles or masks."""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from pydantic import Field

from eircli.common.errors import UserError
from eircli.common.progress import track
from eircli.common.types import BACKGROUND, IGNORE, DataSet
from eircli.config.datasets import Labelme
from eircli.data.annotated import AnnotatedSplit, Foreign, Objects, check_root, checked, data_set, portable, read_json
from eircli.data.class_names import Picked, pick
from eircli.data.files import opened_image
from eircli.data.outlines import AnnotatedObject, Bitmap, Points, Polygons, Region, require_outlines
from eircli.data.resize import Size

SPECIAL = {"__ignore__": IGNORE, "_background_": BACKGROUND}
"""LabelMe's own labels that are no classes."""

WITH_AREA = ("polygon", "rectangle", "circle", "mask")
"""The shapes that are regions."""

CIRCLE = 90
"""Corners of the polygon that stands for a circle."""


class Shape(Foreign):
    """One shape of a JSON file."""

    label: str
    points: list[tuple[float, float]]
    shape_type: str | None = None
    group_id: int | str | None = None
    mask: str | None = None
    """A PNG in base64."""

    @property
    def kind(self) -> str:
        """What it is; of early versions always a polygon."""
        return self.shape_type or "polygon"


class ImageFile(Foreign):
    """What is read of a JSON file."""

    shapes: list[Shape]
    image: str = Field(alias="imagePath")
    width: int | None = Field(None, alias="imageWidth")
    height: int | None = Field(None, alias="imageHeight")
    data: str | None = Field(None, alias="imageData")
    """The image's own file in base64."""

    @property
    def size(self) -> Size | None:
        """The image's size."""
        return None if self.width is None or self.height is None else (self.width, self.height)


def class_names(config: Labelme) -> tuple[str, ...]:
    """The classes that the settings pick, or else the labels in the training files, sorted.

    Raises:
        UserError: a folder or file is missing, or no annotation file.
    """
    return config.classes or _names(_scan(config.root / config.train))


def labelme(config: Labelme) -> DataSet:
    """The images of the training and validation folders' JSON files, or of one folder's.

    Raises:
        UserError: a file or image is missing or not in the format; or a class is.
    """
    check_root(config.root, "the folder of the JSON files")
    require_outlines()
    found = _scan(config.root / config.train)
    names = _names(found)
    picked = pick(names, config.classes, f"the labels in {config.root / config.train}")
    numbers = {name: int(picked.table[position]) for position, name in enumerate(names, start=1)}
    train = LabelmeSplit(found, numbers, picked)
    if config.val is None:
        return data_set(config, picked, train, None)
    others = _scan(config.root / config.val)
    strange = [(file, name) for file in others.values() for name in sorted(file.labels) if name not in numbers]
    if strange and config.classes is None:
        file, name = strange[0]
        raise UserError(f"{file.path}: label '{name}' is in no training image; correct it, or pick by dataset.classes")
    return data_set(config, picked, train, LabelmeSplit(others, numbers | {name: 0 for _, name in strange}, picked))


class LabelmeSplit(AnnotatedSplit):
    """The images of a folder's JSON files.

    Args:
        numbers: the class id of each label.
    """

    def __init__(self, found: dict[str, _File], numbers: dict[str, int], picked: Picked) -> None:
        super().__init__({name: file.path if file.image is None else file.image for name, file in found.items()}, picked)
        self.files, self.numbers = [found[name].path for name in self.ids], {**numbers, **SPECIAL}
        self.names = repr(sorted(self.numbers.items())).encode()

    def sources(self, index: int) -> Sequence[Path | bytes]:
        return (self.names, self.files[index])

    def open_image(self, index: int) -> AbstractContextManager[Image.Image]:
        if self.images[index] == self.files[index]:
            path = self.files[index]
            return opened_image(path, _decoded(_read(path).data, f"{path}: imageData"))
        return super().open_image(index)

    def read(self, index: int) -> Objects:
        path = self.files[index]
        content = _read(path)
        objects: dict[tuple[str, str], list[tuple[Region, str]]] = defaultdict(list)
        for number, shape in enumerate(content.shapes, start=1):
            where = f"{path}: shape {number} ('{shape.label}')"
            key = shape.label, f"alone {number}" if shape.group_id is None else f"group {shape.group_id}"
            if self._label(shape.label, path) != BACKGROUND or shape.kind in WITH_AREA:
                objects[key].append((_region(shape, where), where))
        whole = [one for (label, _), parts in objects.items() for one in _united(self._label(label, path), parts)]
        return Objects(str(path), content.size, whole)

    def _label(self, name: str, path: Path) -> int:
        if name not in self.numbers:
            raise UserError(f"{path}: label '{name}' is new since the data set was opened; run the command again")
        return self.numbers[name]


class _File:
    """What a first look at a JSON file keeps: its labels, and where its image is (None: within it)."""

    def __init__(self, path: Path) -> None:
        content = _read(path)
        self.path, self.labels = path, {shape.label for shape in content.shapes} - SPECIAL.keys()
        self.image = _image_file(path, content)


def _scan(folder: Path) -> dict[str, _File]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check dataset.root, dataset.train and dataset.val")
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise UserError(f"{folder}: holds no JSON file of LabelMe's; check dataset.root, dataset.train and dataset.val")
    return {path.stem: _File(path) for path in track(paths, "reading annotations", len(paths), "files")}


def _names(found: dict[str, _File]) -> tuple[str, ...]:
    return tuple(sorted({name for file in found.values() for name in file.labels}))


def _read(path: Path) -> ImageFile:
    return checked(ImageFile, read_json(path), path, "draw it again, or take the file out of the folder if it is not LabelMe's")


def _image_file(path: Path, content: ImageFile) -> Path | None:
    """Where `imagePath` says, else that file's name beside the JSON file; None: the image is within it."""
    given = PurePosixPath(portable(content.image))
    for image in (path.parent / given, path.parent / given.name):
        if image.is_file():
            return image
    if content.data:
        return None
    raise UserError(f"{path}: its image {content.image} is neither there nor beside it, nor within it; put it beside it")


def _decoded(text: str | None, where: str) -> bytes:
    try:
        return base64.b64decode(text or "", validate=True)
    except binascii.Error as error:
        raise UserError(f"{where}: is no base64 ({error}); save the file again") from None


def _region(shape: Shape, where: str) -> Region:
    if shape.kind not in WITH_AREA:
        raise UserError(f"{where}: is a {shape.kind}, which has no area; delete it, or draw a polygon")
    points = np.array(shape.points, np.float64).reshape(-1, 2)
    if shape.kind == "polygon":
        return Polygons([points])
    if len(points) != 2:
        raise UserError(f"{where}: a {shape.kind} of {len(points)} points; it needs 2: draw it again")
    if shape.kind == "mask":
        return _bitmap(shape.mask, points, where)
    return Polygons([_rectangle(points) if shape.kind == "rectangle" else _circle(points)])


def _rectangle(points: Points) -> Points:
    (x0, y0), (x1, y1) = points
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _circle(points: Points) -> Points:
    """From a circle's centre and a point on it."""
    angles = np.arange(CIRCLE) * 2 * np.pi / CIRCLE
    return np.asarray(points[0] + np.hypot(*(points[1] - points[0])) * np.stack([np.cos(angles), np.sin(angles)], axis=1))


def _bitmap(mask: str | None, points: Points, where: str) -> Bitmap:
    """A mask as a PNG within the file, at the upper left of its two points."""
    with opened_image(Path(where), _decoded(mask, where)) as file:
        pixels = np.array(file.convert("L")) > 0
    left, top = np.round(points.min(axis=0)).astype(int).tolist()
    return Bitmap(pixels, left, top)


def _united(label: int, parts: Sequence[tuple[Region, str]]) -> list[AnnotatedObject]:
    """The shapes of a group: one object if all are polygons, else each its own."""
    polygons = [part for region, _ in parts if isinstance(region, Polygons) for part in region.parts]
    if len(polygons) == len(parts):
        return [AnnotatedObject(label, Polygons(polygons), parts[0][1])]
    return [AnnotatedObject(label, region, where) for region, where in parts]
