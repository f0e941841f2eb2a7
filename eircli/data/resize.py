"""Resizing images and labels to a short side."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from PIL import Image

from eircli.common.types import Int32Array, Sample, UInt8Array

Pixels = TypeVar("Pixels", UInt8Array, Int32Array)

Size = tuple[int, int]
"""Width and height, pixels, as Pillow has them."""


def size_at(size: Size, side: int | None) -> Size:
    """The size of an image of `size` once its short side is `side` pixels, its long side cut to whole pixels as by torchvision's
    `Resize`; None keeps it.

    Example:
        >>> size_at((500, 375), side=512)
        (682, 512)
    """
    if side is None:
        return size
    width, height = size
    long = int(side * max(size) / min(size))
    return (side, long) if width <= height else (long, side)


def resize_short_side(sample: Sample, side: int) -> Sample:
    """Resize so that the short side is `side` pixels: the image bilinear with antialiasing, the label nearest."""
    return Sample(resize_image(sample.image, side), resize_label(sample.label, side))


def resize_image(image: UInt8Array, side: int) -> UInt8Array:
    """An image [H, W, 3] at the short side `side`, bilinear with antialiasing."""
    return _resize(image, side, Image.Resampling.BILINEAR)


def resize_label(label: UInt8Array, side: int | None) -> UInt8Array:
    """A label uint8 [H, W] at the short side `side`, nearest neighbour; None keeps its size."""
    return label if side is None else _resize(label, side, Image.Resampling.NEAREST)


def resize_numbers(numbers: Int32Array, side: int | None) -> Int32Array:
    """A map of numbers int32 [H, W] at the short side `side`, from the same pixels as a label's; None keeps its size."""
    return numbers if side is None else _resize(numbers, side, Image.Resampling.NEAREST)


def _resize(pixels: Pixels, side: int, how: Image.Resampling) -> Pixels:
    height, width = pixels.shape[:2]
    size = size_at((width, height), side)
    return pixels if size == (width, height) else np.array(Image.fromarray(pixels).resize(size, how), pixels.dtype)
