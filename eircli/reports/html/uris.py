"""Pictures as data URIs, so that a report is one file."""

from __future__ import annotations

import base64
import io

from PIL import Image

from eircli.common.types import UInt8Array


def png_uri(pixels: UInt8Array) -> str:
    """A picture uint8 [H, W, 3] as a PNG."""
    return _uri(Image.fromarray(pixels), "png", optimize=True)


def jpeg_uri(picture: Image.Image, quality: int) -> str:
    """A picture as a JPEG, its colours not subsampled: they would bleed over the rims of classes."""
    return _uri(picture, "jpeg", quality=quality, subsampling=0, optimize=True)


def _uri(picture: Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
