"""Which way up an image is: the EXIF orientation that cameras write, which Pillow leaves alone and annotation tools follow."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from eircli.common.types import UInt8Array
from eircli.data.resize import Size

Turn = Image.Transpose

TURNS = {
    2: Turn.FLIP_LEFT_RIGHT,
    3: Turn.ROTATE_180,
    4: Turn.FLIP_TOP_BOTTOM,
    5: Turn.TRANSPOSE,
    6: Turn.ROTATE_270,
    7: Turn.TRANSVERSE,
    8: Turn.ROTATE_90,
}
"""EXIF orientation → what turns the stored pixels upright."""

SIDEWAYS = {Turn.TRANSPOSE, Turn.ROTATE_270, Turn.TRANSVERSE, Turn.ROTATE_90}
"""Those that swap width and height."""


class Pose(NamedTuple):
    """How an image lies in its annotation."""

    size: Size
    """Its size there."""
    turn: Turn | None
    """What turns the stored pixels so; None if nothing."""


def pose(file: Image.Image, annotated: Size | None) -> Pose | None:
    """How an opened image lies in an annotation made at the size `annotated`; None (no size is recorded) trusts the orientation.

    Upright, if that has this size; as stored, if only that has; returns None if neither has.
    """
    # Pillow would decode a whole PNG in search of a tag behind its pixels.
    turn = TURNS.get(file.getexif().get(ExifTags.Base.Orientation, 1)) if "exif" in file.info else None
    upright = file.size[::-1] if turn in SIDEWAYS else file.size
    if annotated in (None, upright):
        return Pose(upright, turn)
    return Pose(file.size, None) if annotated == file.size else None


def turned(image: UInt8Array, turn: Turn | None) -> UInt8Array:
    """The pixels of an image [H, W, 3], turned."""
    return image if turn is None else np.array(Image.fromarray(image).transpose(turn))
