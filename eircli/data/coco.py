"""COCO instance annotations: one JSON file for all images, objects by polygons or RLE."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from eircli.common.errors import UserError
from eircli.common.types import BACKGROUND, IGNORE, DataSet
from eircli.config.datasets import Coco
from eircli.data.annotated import AnnotatedSplit, Objects, check_root, data_set, image_name, portable, read_json
from eircli.data.class_names import Picked, pick
from eircli.data.outlines import AnnotatedObject, Polygons, Region, RunLengths, require_outlines, run_lengths

Json = Any


def class_names(config: Coco) -> tuple[str, ...]:
    """The classes that the settings pick, or else the categories of the training file, by their ids.

    Raises:
        UserError: the file is missing, or no annotation file.
    """
    return config.classes or tuple(_File(config.root / config.train).categories.values())


def coco(config: Coco) -> DataSet:
    """The training and validation images of two annotation files, or of one. Categories have their ids' order.

    Raises:
        UserError: a file or image is missing or not in the format; or a category is.
    """
    check_root(config.root, "the folder from which the paths of annotations and images count")
    require_outlines()
    own = _File(config.root / config.train)
    picked = pick(list(own.categories.values()), config.classes, own.path)
    train = own.split(_folder(config.root, config.train_images, own.path), picked, own)
    if config.val is None:
        return data_set(config, picked, train, None)
    other = _File(config.root / config.val)
    strange = [name for name in other.categories.values() if name not in own.categories.values()]
    if strange and config.classes is None:
        raise UserError(
            f"{other.path}: category '{strange[0]}' is not in {own.path}; give both the same, or pick by dataset.classes"
        )
    return data_set(config, picked, train, other.split(_folder(config.root, config.val_images, other.path), picked, own))


def _folder(root: Path, images: Path | None, annotations: Path) -> Path:
    return annotations.parent if images is None else root / images


class CocoSplit(AnnotatedSplit):
    """The images of an annotation file.

    Args:
        path: the file.
        records: of each image, its size and annotations as JSON: a tenth of the memory that they take as objects, and shared
            between processes.
        table: the class id of each category's id.
    """

    def __init__(
        self, path: Path, images: dict[str, Path], records: dict[str, bytes], table: Mapping[int, int], picked: Picked
    ) -> None:
        super().__init__(images, picked)
        self.path, self.table = path, table
        self.records = [records[name] for name in self.ids]

    def sources(self, index: int) -> Sequence[Path | bytes]:
        return (json.dumps(sorted(self.table.items())).encode(), self.records[index])

    def read(self, index: int) -> Objects:
        width, height, annotations = json.loads(self.records[index])
        name = f"{self.path}: image {self.ids[index]}"
        objects = []
        for annotation in annotations:
            where = f"{self.path}: annotation {annotation.get('id')} of {self.images[index].name}"
            label, crowd = self.table[annotation["category_id"]], bool(annotation.get("iscrowd"))
            region = _region(annotation.get("segmentation"), where)
            objects.append(AnnotatedObject(IGNORE if crowd and label != BACKGROUND else label, region, where, lowest=crowd))
        return Objects(name, (width, height), objects)


class _File:
    """An annotation file, read and checked, but for the objects' outlines."""

    def __init__(self, path: Path) -> None:
        self.path, content = path, read_json(path)
        for key in ("images", "annotations", "categories"):
            if not isinstance(content, dict) or not _is_list_of_mappings(content.get(key)):
                raise UserError(f"{path}: is no COCO instance file: it has no list '{key}'; export it as COCO instances")
        if not content["images"]:
            raise UserError(f"{path}: lists no image")
        self.images: dict[Json, Json] = self._by_id("image", content["images"])
        self.categories = self._category_names(content["categories"])
        self.annotations: dict[Json, list[Json]] = defaultdict(list)
        for annotation in content["annotations"]:
            number = annotation.get("id")
            for key, known, what in (("image_id", self.images, "image"), ("category_id", self.categories, "category")):
                if annotation.get(key) not in known:
                    raise UserError(
                        f"{path}: annotation {number} is of {what} {annotation.get(key)}, which is not listed; list it, or delete the annotation"
                    )
            kept = {key: annotation.get(key) for key in ("id", "category_id", "iscrowd", "segmentation")}
            self.annotations[annotation["image_id"]].append(kept)

    def _by_id(self, what: str, entries: Iterable[Json]) -> dict[Json, Json]:
        found: dict[Json, Json] = {}
        for entry in entries:
            number = entry.get("id")
            if not isinstance(number, int | str) or number in found:
                raise UserError(
                    f"{self.path}: {what} id {number!r} {'occurs twice' if number in found else 'is no id'}; export it again"
                )
            found[number] = entry
        return found

    def _category_names(self, entries: Iterable[Json]) -> dict[int, str]:
        """Names by id, in the order of the ids."""
        found = self._by_id("category", entries)
        if wrong := [
            entry for number, entry in found.items() if not isinstance(number, int) or not isinstance(entry.get("name"), str)
        ]:
            raise UserError(f"{self.path}: category {wrong[0]} needs a whole number as its id, and a name; export it again")
        return {number: found[number]["name"] for number in sorted(found)}

    def split(self, folder: Path, picked: Picked, own: _File) -> CocoSplit:
        """The images of the file, which lie in a folder; classes are those picked of `own`, the training images' file."""
        paths: dict[str, Path] = {}
        records: dict[str, bytes] = {}
        missing = []
        for number, image in self.images.items():
            size = [image.get("width"), image.get("height")]
            if not isinstance(image.get("file_name"), str) or not all(isinstance(side, int) and side > 0 for side in size):
                raise UserError(f"{self.path}: image {number} needs file_name, width and height; export it again")
            file = portable(image["file_name"])
            name = image_name(file)
            if name in paths:
                raise UserError(f"{self.path}: lists two images named {name}; rename or drop one of them")
            paths[name], records[name] = (
                folder / PurePosixPath(file),
                json.dumps([*size, self.annotations.get(number, [])]).encode(),
            )
            if not paths[name].is_file():
                missing.append(paths[name])
        if missing:
            raise UserError(
                f"{missing[0]}: missing, listed in {self.path} ({len(missing)} such images); "
                "check dataset.train_images and dataset.val_images, the folders from which file_name counts"
            )
        ids = {name: int(picked.table[position]) for position, name in enumerate(own.categories.values(), start=1)}
        return CocoSplit(
            self.path, paths, records, {number: ids.get(name, 0) for number, name in self.categories.items()}, picked
        )


def _is_list_of_mappings(entries: Json) -> bool:
    return isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)


def _region(segmentation: Json, where: str) -> Region:
    """The region of an annotation: a list of polygons, or an RLE whose counts are a list or, compressed, a string."""
    try:
        if isinstance(segmentation, dict):
            counts, (height, width) = segmentation["counts"], segmentation["size"]
            runs = run_lengths(counts) if isinstance(counts, str) else [int(count) for count in counts]
            return RunLengths(runs, (int(width), int(height)))
        if isinstance(segmentation, list) and segmentation:
            return Polygons([_corners(numbers) for numbers in segmentation])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: its segmentation is neither polygons nor an RLE ({error}); export it again") from None
    raise UserError(f"{where}: has no segmentation; export instances with their outlines, not boxes")


def _corners(numbers: Json) -> np.ndarray[Any, np.dtype[np.float64]]:
    flat = np.array(numbers, np.float64)
    if flat.ndim != 1 or len(flat) % 2 or not np.isfinite(flat).all():
        raise ValueError("a polygon is a list of x, y, x, y, …")
    return flat.reshape(-1, 2)
