"""`eir predict`: a step's model on images of one's own, and what is written of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
from PIL import Image

from eircli.common.errors import UserError
from eircli.common.io import atomic_write
from eircli.common.progress import progress
from eircli.common.types import UInt8Array
from eircli.data.photos import Photo, read_photo
from eircli.reports.colours import palette
from eircli.reports.overlay import overlay
from eircli.run.predictor import Predictor

READERS = 2
"""Threads that read images ahead."""


@dataclass(frozen=True)
class ClassArea:
    """What of an image is of a class."""

    id: int
    name: str
    pixels: int
    share: float


@dataclass(frozen=True)
class Prediction:
    """What was predicted on an image, and the files that say so."""

    image: str
    width: int
    height: int
    """Of the image as it is seen: turned upright."""
    classes: tuple[ClassArea, ...]
    """The classes found, background's among them, largest first."""
    class_ids: str
    """A palette PNG of class ids."""
    overlay: str | None
    probabilities: str | None
    """A NumPy archive: `probabilities`, float16 [K, H, W], with the `names` and `class_ids` of its channels."""


@dataclass(frozen=True)
class Predictions:
    """All that `eir predict` found."""

    run_dir: str
    step: int
    images: tuple[Prediction, ...]
    unreadable: dict[str, str]
    """Image → why it could not be read."""


@dataclass(frozen=True)
class Wanted:
    """What is written beside the class ids."""

    overlays: bool = True
    probabilities: bool = False


def predict_all(
    predictor: Predictor, photos: Sequence[Photo], out: Path, wanted: Wanted, batch_size: int
) -> tuple[list[Prediction], dict[str, str]]:
    """Predict on images and write it into a folder: `NAME.png`, `NAME-overlay.jpg`, `NAME-probabilities.npz`.

    Neighbours of one size go through the network together, at most `batch_size` of them.

    Returns:
        What was predicted; and of the images that could not be read, why.
    """
    done: list[Prediction] = []
    unreadable: dict[str, str] = {}
    with progress("predicting", len(photos), "images") as reporter, ThreadPoolExecutor(READERS) as readers:
        read = _read_ahead(photos, readers, batch_size)
        for shape, group in groupby(read, key=lambda pair: None if isinstance(pair[1], str) else pair[1].shape):
            if shape is None:
                found = {str(photo.path): why for photo, why in group if isinstance(why, str)}
                unreadable |= found
                reporter.advance(len(found))
                continue
            same = iter(group)
            while batch := list(islice(same, batch_size)):
                images = [image for _, image in batch if not isinstance(image, str)]
                for (photo, _), image, channels in zip(batch, images, predictor.predict_batch(images), strict=True):
                    done.append(_write(predictor, photo, image, channels, out, wanted))
                reporter.advance(len(batch))
    return done, unreadable


def _read_ahead(photos: Sequence[Photo], readers: ThreadPoolExecutor, ahead: int) -> Iterator[tuple[Photo, UInt8Array | str]]:
    """The images in order, or why one cannot be read; no more than `ahead` and one of them wait."""
    waiting: list[tuple[Photo, Future[UInt8Array]]] = []
    for photo in photos:
        waiting.append((photo, readers.submit(read_photo, photo.path)))
        if len(waiting) > ahead:
            yield _read(*waiting.pop(0))
    yield from (_read(*one) for one in waiting)


def _read(photo: Photo, image: Future[UInt8Array]) -> tuple[Photo, UInt8Array | str]:
    try:
        return photo, image.result()
    except UserError as error:
        return photo, str(error).removeprefix(f"{photo.path}: ")


def _write(predictor: Predictor, photo: Photo, image: UInt8Array, channels: UInt8Array, out: Path, wanted: Wanted) -> Prediction:
    ids, names = predictor.class_ids, predictor.names
    beside = {name: out / f"{photo.name}{ending}" for name, ending in ENDINGS.items()}
    class_map = Image.fromarray(ids[channels])
    class_map.putpalette(palette().tobytes())
    _save(beside["class_ids"], lambda file: class_map.save(file, "PNG", optimize=True))
    if wanted.overlays:
        drawn = overlay(image, channels, names)
        _save(beside["overlay"], lambda file: drawn.save(file, "JPEG", quality=92))
    if wanted.probabilities:
        found = predictor.probabilities(image)
        _save(
            beside["probabilities"],
            lambda file: np.savez_compressed(file, probabilities=found, names=np.array(names), class_ids=ids),
        )
    counts = np.bincount(channels.ravel(), minlength=len(names))
    order = [channel for channel in np.argsort(-counts, kind="stable").tolist() if counts[channel]]
    areas = tuple(ClassArea(int(ids[c]), names[c], int(counts[c]), float(counts[c] / channels.size)) for c in order)
    return Prediction(
        image=str(photo.path),
        width=image.shape[1],
        height=image.shape[0],
        classes=areas,
        class_ids=str(beside["class_ids"]),
        overlay=str(beside["overlay"]) if wanted.overlays else None,
        probabilities=str(beside["probabilities"]) if wanted.probabilities else None,
    )


ENDINGS = {"class_ids": ".png", "overlay": "-overlay.jpg", "probabilities": "-probabilities.npz"}


def _save(path: Path, write: Callable[[io.BytesIO], object]) -> None:
    """Write a file atomically; by way of memory, since some encoders go back in their file."""
    buffer = io.BytesIO()
    write(buffer)
    with atomic_write(path, durable=False) as file:
        file.write(buffer.getvalue())
