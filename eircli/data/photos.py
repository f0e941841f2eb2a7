"""Images of one's own to predict on: found by file, folder or pattern; read upright."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from eircli.common.errors import UserError
from eircli.common.types import UInt8Array

FORMATS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"}
"""The endings by which images are found in folders."""

EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
"""Pillow's modes whose values have at most eight bits."""


@dataclass(frozen=True)
class Photo:
    """An image to predict on."""

    path: Path
    name: str
    """What its predictions are called, without an ending; `/` parts folders."""


def find_photos(targets: Sequence[str]) -> list[Photo]:
    """The images that files, folders (with all below them) and patterns name, each once, in order.

    An image is named by its path below the folder it was found in, without its ending; where two would be the same, with it, then
    with as many of the folders above as tell them apart.

    Raises:
        UserError: a target that names no image.
    """
    found: dict[Path, Path] = {}
    for target in targets:
        for path, below in _expand(target):
            found.setdefault(path.resolve(), below)
    names = {path: below.with_suffix("").as_posix() for path, below in found.items()}
    above = 0
    while twice := [path for path in names if Counter(names.values())[names[path]] > 1]:
        for path in twice:
            names[path] = Path(*path.parts[-len(found[path].parts) - above :]).as_posix()
        above += 1
    return [Photo(path, name) for path, name in names.items()]


def _expand(target: str) -> list[tuple[Path, Path]]:
    """The images of one target: each with its path below where it was looked for."""
    path = Path(target)
    if path.is_dir():
        inside = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in FORMATS and file.is_file()]
        if not inside:
            raise UserError(f"{target}: holds no image ({', '.join(sorted(FORMATS))})")
        return [(file, file.relative_to(path)) for file in inside]
    files = [path] if path.exists() else [Path(name) for name in sorted(glob.glob(target, recursive=True))]
    if not files:
        raise UserError(f"{target}: no such image, folder or pattern")
    return [(file, Path(file.name)) for file in files if file.is_file()]


def read_photo(path: Path) -> UInt8Array:
    """An image as uint8 [H, W, 3] in RGB, turned upright where its EXIF data say how it was held.

    Raises:
        UserError: it cannot be read, or has more than eight bits a channel.
    """
    try:
        with Image.open(path) as file:
            if file.mode in EIGHT_BITS:
                return np.array(ImageOps.exif_transpose(file).convert("RGB"))
            mode = file.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    raise UserError(f"{path}: has more than 8 bits a channel ({mode}); convert it to 8 bits")
