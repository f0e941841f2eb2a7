"""Colours that tell classes apart."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from eircli.common.types import BACKGROUND, IGNORE, UInt8Array

GRID = 18
"""Candidates per primary colour."""

LEAST_CHROMA = 35.0
"""Of CIELAB; less is grey, like parts of a photograph."""


@cache
def palette() -> UInt8Array:
    """uint8 [256, 3]: each colour as far as can be from those before it, in CIELAB; 0 is black and `IGNORE` white.

    None is grey, nor nearly black or white: under a class's colour a photograph stays visible.
    """
    steps = np.linspace(0, 255, GRID).round().astype(np.uint8)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _lab(candidates)
    light, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    kept = (light > 25) & (light < 92) & (chroma > LEAST_CHROMA)
    candidates, lab = candidates[kept], lab[kept]
    colours, table = _lab(np.array([[0, 0, 0], [255, 255, 255], [128, 128, 128]], np.uint8)), np.zeros((256, 3), np.uint8)
    distance = np.linalg.norm(lab[:, None] - colours[None], axis=2).min(axis=1)
    for class_id in range(256):
        if class_id in (BACKGROUND, IGNORE):
            table[class_id] = 255 if class_id == IGNORE else 0
            continue
        chosen = int(distance.argmax())
        table[class_id] = candidates[chosen]
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen], axis=1))
    return table


def _lab(colours: UInt8Array) -> NDArray[np.float64]:
    """sRGB colours uint8 [n, 3] in CIELAB, float [n, 3]."""
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    turned = ImageCms.applyTransform(Image.fromarray(colours[None]), to_lab)
    assert turned is not None
    coded = np.asarray(turned)[0].astype(np.int16)
    # Pillow codes lightness as 0..255 and the other two as signed bytes.
    signed = np.where(coded[:, 1:] > 127, coded[:, 1:] - 256, coded[:, 1:])
    return np.column_stack([coded[:, 0] * 100 / 255, signed]).astype(np.float64)
