"""Images with annotations of people's own: what the formats share."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from eircli.common.errors import UserError
from eircli.common.types import DataSet, InstanceMap, Sample, UInt8Array
from eircli.config.datasets import Annotations
from eircli.data.class_names import Picked
from eircli.data.files import check_ending, decode, opened_image, unreadable
from eircli.data.outlines import AnnotatedObject, label_map, paint
from eircli.data.part import Part, hold_out
from eircli.data.resize import Size, resize_label, size_at
from eircli.data.upright import Pose, pose, turned

READING = 1
"""Incremented whenever the same annotation would be read to another label."""


class Annotation(Protocol):
    """What is known of one image."""

    @property
    def name(self) -> str:
        """What names it in a message."""
        ...

    @property
    def size(self) -> Size | None:
        """The image's size when it was annotated, if the format has it."""
        ...

    def label(self, size: Size) -> UInt8Array:
        """uint8 [H, W], class ids, of an image of `size`.

        Raises:
            UserError: naming what is faulty.
        """
        ...

    def instances(self, size: Size) -> InstanceMap:
        """The same with objects told apart, int32 [H, W]; of formats that do."""
        ...


@dataclass(frozen=True)
class Objects:
    """An annotation by objects."""

    name: str
    size: Size | None
    objects: Sequence[AnnotatedObject]

    def label(self, size: Size) -> UInt8Array:
        """uint8 [H, W], class ids."""
        return label_map(self.instances(size))

    def instances(self, size: Size) -> InstanceMap:
        """Objects told apart, int32 [H, W]."""
        return paint(self.objects, size)


class AnnotatedSplit(ABC):
    """A split (the `Split` of `types`) whose labels are made of annotations, each when it is loaded.

    Args:
        images: the files by the names of the images, which are sorted by them.
        picked: the classes.
    """

    def __init__(self, images: dict[str, Path], picked: Picked) -> None:
        self.ids, self.images = sorted(images), [images[name] for name in sorted(images)]
        self.picked = picked

    @abstractmethod
    def read(self, index: int) -> Annotation:
        """The annotation of an image.

        Raises:
            UserError: naming the file that is faulty, and what to do.
        """

    @abstractmethod
    def sources(self, index: int) -> Sequence[Path | bytes]:
        """What the annotation of an image is read from: files, or text."""

    def open_image(self, index: int) -> AbstractContextManager[Image.Image]:
        """An image, opened."""
        return opened_image(self.images[index])

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int, short_side: int | None = None) -> Sample:
        annotation = self.read(index)
        with self.open_image(index) as file:
            size, turn = self._pose(index, annotation, file)
            image = turned(decode(file, size_at(file.size, short_side)), turn)
        return Sample(image, resize_label(annotation.label(size), short_side))

    def load_label(self, index: int) -> UInt8Array:
        """uint8 [H, W], class ids; checked."""
        annotation, size = self._annotation(index)
        return annotation.label(size)

    def load_instances(self, index: int) -> InstanceMap:
        """The objects of an image, int32 [H, W], of formats that tell them apart."""
        annotation, size = self._annotation(index)
        return annotation.instances(size)

    def _annotation(self, index: int) -> tuple[Annotation, Size]:
        """The annotation of an image, and the size of its label."""
        annotation = self.read(index)
        with self.open_image(index) as file:
            return annotation, self._pose(index, annotation, file).size

    def _pose(self, index: int, annotation: Annotation, file: Image.Image) -> Pose:
        found = pose(file, annotation.size)
        if found is None:
            assert annotation.size is not None
            width, height = annotation.size
            raise UserError(
                f"{annotation.name}: was made on {width}x{height} pixels, its image {self.images[index].name} is "
                f"{file.size[0]}x{file.size[1]}; put the image there that was annotated, or export the annotations again"
            )
        return found

    def present(self, index: int) -> list[int]:
        for file in (self.images[index], *self.sources(index)):
            if isinstance(file, Path) and file.suffix not in (".json", ".txt"):
                check_ending(file)
        return np.flatnonzero(Image.fromarray(self.load_label(index)).histogram()).tolist()

    def fingerprint(self) -> str:
        return hashlib.sha256("".join(map(self.sample_fingerprint, range(len(self)))).encode()).hexdigest()

    def sample_fingerprint(self, index: int) -> str:
        digest = hashlib.sha256(f"{READING} {self._classes} {self.ids[index]}".encode())
        for source in (self.images[index], *self.sources(index)):
            digest.update(_state(source) if isinstance(source, Path) else source)
        return digest.hexdigest()

    @cached_property
    def _classes(self) -> str:
        return hashlib.sha256(self.picked.table.tobytes()).hexdigest()


def _state(path: Path) -> bytes:
    """A file's name, size and time of change."""
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    return f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}\n".encode()


def data_set(config: Annotations, picked: Picked, train: AnnotatedSplit, val: AnnotatedSplit | None) -> DataSet:
    """The data set of a training part and a validation part; without that, every `val_every`-th image is validation.

    Raises:
        UserError: a part is left without an image.
    """
    if val is not None:
        return DataSet(picked.classes, train, val)
    every = config.val_every
    assert every is not None, "the settings ask for one of both"
    if len(train) < every:
        raise UserError(
            f"dataset.val_every: every {every}th of {len(train)} images leaves none to validate on; give a smaller number"
        )
    parts = hold_out(DataSet(picked.classes, train, train), every)
    assert isinstance(parts.train, Part)
    return parts


def check_root(root: Path, what: str) -> None:
    """Check that `dataset.root` is there.

    Raises:
        UserError: it is no folder.
    """
    if not root.is_dir():
        raise UserError(f"dataset.root: {root} is no folder; set it to {what} with --set dataset.root=…")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: it is missing, or no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: is no JSON ({' '.join(str(error).split())}); export it again") from None
    except OSError as error:
        raise unreadable(path, error) from None


class Foreign(BaseModel):
    """A part of another program's file: what is read of it, checked; the rest is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, coerce_numbers_to_str=True)


ForeignT = TypeVar("ForeignT", bound=Foreign)


def checked(model: type[ForeignT], content: object, path: Path, remedy: str) -> ForeignT:
    """The content of a file as a model.

    Raises:
        UserError: it does not fit; the first place that does not is named, and `remedy`.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {place + ': ' if place else ''}{first['msg'].lower()}; {remedy}") from None


def portable(path: str) -> str:
    """A path as a tool on any system wrote it, with this one's slashes."""
    return PureWindowsPath(path).as_posix() if "\\" in path else path


def image_name(path: str) -> str:
    """The name of an image by its path: without what leads out of its folder, and without its ending."""
    parts = [part for part in Path(path).parts if part not in ("/", "..") and ":" not in part]
    return Path(*parts).with_suffix("").as_posix() if parts else ""
