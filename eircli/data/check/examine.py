"""One image and its label, read whole: what they hold, and all that is wrong with them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from eircli.common.errors import UserError
from eircli.common.types import IGNORE, Split, UInt8Array
from eircli.data.check.report import Finding, error_of
from eircli.data.files import FileSplit, check_ending, opened_image
from eircli.data.resize import Size

Pixels = NDArray[np.int64]
"""int64 [256], how many pixels have each id."""

UPRIGHT = 1
"""The EXIF orientation of a picture that is stored as it is looked at."""

TRANSPOSED = (5, 6, 7, 8)
"""Those of pictures whose width and height change places when they are turned upright."""


@dataclass
class Examined:
    """What an image and its label hold."""

    size: Size | None = None
    """Of the image; None if it cannot be read."""
    raw: Pixels | None = None
    """By the ids in the file; None if the label cannot be read."""
    pixels: Pixels | None = None
    """By the data set's ids; None if the label cannot be used."""
    digest: bytes = b""
    """Of the image's content."""
    findings: list[Finding] = field(default_factory=list)


def examine(split: Split, position: int) -> Examined:
    """Read an image and its label whole; nothing is raised for what is wrong with them."""
    if isinstance(split, FileSplit):
        return _examine_files(split, position)
    found = Examined()
    try:
        image, label = split.load(position)
    except UserError as error:
        found.findings.append(error_of(error))
        return found
    found.size, found.digest = (image.shape[1], image.shape[0]), hashlib.sha256(image.tobytes()).digest()
    found.raw = found.pixels = _count(label)
    return found


def _examine_files(split: FileSplit, position: int) -> Examined:
    image, label = split.images[position], split.labels[position]
    found, orientation = Examined(), UPRIGHT
    try:
        orientation = _read_image(image, found)
    except (UserError, ValueError, Image.DecompressionBombError) as error:
        found.findings.append(_of_file(image, error))
    try:
        check_ending(label)
        with opened_image(label) as file:
            mode, values = file.mode, np.array(file)
    except (UserError, ValueError, Image.DecompressionBombError) as error:
        found.findings.append(_of_file(label, error))
        return found
    wrong = [*_of_mode(mode, values), *_of_size(values, found.size, image, orientation)]
    if mode in ("L", "P", "1"):
        found.raw = _count(values.astype(np.uint8))
        wrong += _of_ids(found.raw, split.class_count)
    found.findings += [Finding("error", str(label), message) for message in wrong]
    if not wrong and found.raw is not None:
        found.pixels = found.raw if split.table is None else np.bincount(split.table, found.raw, 256).astype(np.int64)
    if not wrong and orientation != UPRIGHT:
        found.findings.append(
            Finding("oddity", str(image), f"its EXIF tag asks to turn it (orientation {orientation}); it is used as it is stored")
        )
    return found


def _read_image(path: Path, found: Examined) -> int:
    """Decode a picture; its EXIF orientation."""
    check_ending(path)
    with path.open("rb") as content:
        found.digest = hashlib.file_digest(content, "sha256").digest()
    with opened_image(path) as file:
        found.size = file.size
        file.load()
        if file.mode.startswith(("I", "F")):
            message = f"has 16 or 32 bits per pixel (mode {file.mode}), which would be cut to 8; save it with 8 bits per channel"
            found.findings.append(Finding("error", str(path), message))
        return int(file.getexif().get(ExifTags.Base.Orientation, UPRIGHT))


def _of_mode(mode: str, values: NDArray[np.generic]) -> Iterator[str]:
    if mode.startswith(("I", "F")):
        yield f"has 16 or 32 bits per pixel (mode {mode}); save the ids as 8 bits"
    elif mode not in ("L", "P", "1"):
        equal = values.ndim == 3 and (values[..., :3] == values[..., :1]).all()
        cure = "its channels are equal: keep one" if equal else "convert its colours to ids"
        yield f"is coded as {mode}, not as a single channel of class ids; {cure}"


def _of_size(values: NDArray[np.generic], size: Size | None, image: Path, orientation: int) -> Iterator[str]:
    if size is None or (own := values.shape[1::-1]) == size:
        return
    if own == size[::-1] and orientation in TRANSPOSED:
        yield (
            f"is {own[0]}x{own[1]} pixels, {image.name} is stored as {size[0]}x{size[1]} with an EXIF tag that turns it (orientation "
            f"{orientation}); save the photo turned, without the tag"
        )
        return
    yield f"is {own[0]}x{own[1]} pixels, its image {image.name} is {size[0]}x{size[1]}"


def _of_ids(raw: Pixels, class_count: int) -> Iterator[str]:
    if wrong := [str(i) for i in np.flatnonzero(raw) if class_count < i < IGNORE]:
        yield f"holds id {', '.join(wrong)}; ids are 0 (background), 1..{class_count} and 255 (ignore)"


def _of_file(path: Path, error: Exception) -> Finding:
    if isinstance(error, UserError):
        return error_of(error)
    return Finding(
        "error", str(path), f"cannot be read ({' '.join(str(error).split())}); copy it again or take it out of the split"
    )


def _count(label: UInt8Array) -> Pixels:
    return np.bincount(label.ravel(), minlength=256)
