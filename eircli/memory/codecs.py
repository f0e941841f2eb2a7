"""Pixels as the bytes of a picture file, and back: JPEG, PNG, WebP, AVIF."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from eircli.common.errors import UserError
from eircli.common.types import UInt8Array

Encoding = Literal["jpeg", "png", "webp", "avif"]

# Colour is not subsampled where a format allows that: it would bleed from what surrounds an object over its rim.
# One thread for AVIF: how it tiles a picture, and so its bytes, depends on their number.
OPTIONS: dict[Encoding, dict[str, Any]] = {
    "jpeg": {"subsampling": 0},
    "png": {"optimize": True},
    "webp": {"method": 6},
    "avif": {"subsampling": "4:4:4", "max_threads": 1},
}
"""What each format is written with, beside the quality."""


def check_codec(encoding: Encoding) -> None:
    """Refuse a format that the installed Pillow cannot write.

    Raises:
        UserError: naming the key.
    """
    Image.init()
    if encoding.upper() not in Image.SAVE:
        usable = [name for name in OPTIONS if name.upper() in Image.SAVE]
        raise UserError(
            f"memory.encoding: the installed Pillow has no codec for {encoding}; install one that has it (WebP and AVIF: the "
            f"wheels of Pillow 11.3 and later), or take one of {', '.join(usable)}"
        )


def encode_pixels(pixels: UInt8Array, encoding: Encoding, quality: int) -> bytes:
    """uint8 [H, W, 3] as a picture file.

    Args:
        quality: 1..100, as the format counts it; PNG is lossless and has none.

    Raises:
        UserError: the installed Pillow lacks the codec.
    """
    check_codec(encoding)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, encoding.upper(), quality=quality, **OPTIONS[encoding])
    return buffer.getvalue()


def decode_pixels(file: bytes) -> UInt8Array:
    """A picture file of any of the formats as uint8 [H, W, 3].

    Raises:
        UserError: the installed Pillow lacks its codec.
    """
    try:
        return np.array(Image.open(io.BytesIO(file)).convert("RGB"))
    except UnidentifiedImageError:
        raise UserError(
            "memory.encoding: the installed Pillow has no codec for the pixels of this bank; install one that has it (WebP and AVIF: "
            "the wheels of Pillow 11.3 and later)"
        ) from None
