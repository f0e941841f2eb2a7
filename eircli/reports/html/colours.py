"""Colours of classes that also colour-blind readers tell apart."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from eircli.common.types import IGNORE, UInt8Array

Floats = NDArray[np.float64]

LEVELS = 14
"""Of red, green and blue among the candidates."""

LIGHTNESS = (0.42, 0.86)
"""Of OKLab: dark enough on white, light enough on black."""

CHROMA = (0.075, 0.2)
"""Of OKLab: nothing as grey as the photographs under the labels, nothing glaring."""

# Björn Ottosson, "A perceptual color space for image processing", 2020: linear sRGB → cone responses → OKLab.
TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009, severity 1.
VISIONS = {
    "usual": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
}
"""Linear sRGB as it is → as it is seen."""

USUAL = 0.6
"""What a distance in the usual vision counts: those who see more colours are to find them further apart."""


def seen(colours: UInt8Array) -> Floats:
    """What each vision makes of colours uint8 [N, 3]: OKLab float [visions, N, 3]."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.stack([_lab(np.clip(linear @ matrix.T, 0, 1)) for matrix in VISIONS.values()])


def _lab(linear: Floats) -> Floats:
    lab: Floats = np.cbrt(linear @ TO_CONES.T) @ TO_LAB.T
    return lab


@cache
def class_colours() -> UInt8Array:
    """uint8 [256, 3]: channel → colour. Each is as far from those before it as can be, to whichever vision sees them as closest.

    Black, greys and white count as taken, so that background and ignored pixels (white) are told apart from classes.
    """
    levels = np.linspace(0, 255, LEVELS).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    usual = seen(grid)[0]
    chroma = np.hypot(usual[:, 1], usual[:, 2])
    candidates = grid[
        (usual[:, 0] >= LIGHTNESS[0]) & (usual[:, 0] <= LIGHTNESS[1]) & (chroma >= CHROMA[0]) & (chroma <= CHROMA[1])
    ]
    places = seen(candidates)
    greys = seen(np.array([[0, 0, 0], [90, 90, 90], [255, 255, 255]], np.uint8))
    gaps = np.min([_gap(places, grey[:, None]) for grey in greys.swapaxes(0, 1)], axis=0)
    table = np.full((256, 3), 90, np.uint8)
    table[IGNORE] = 255
    for channel in range(1, IGNORE):
        best = int(gaps.argmax())
        table[channel] = candidates[best]
        gaps = np.minimum(gaps, _gap(places, places[:, best : best + 1]))
    return table


def _gap(places: Floats, one: Floats) -> Floats:
    """How far every colour is from one of them, in the vision in which it is nearest: [visions, N, 3], [visions, 1, 3] → [N]."""
    distances = np.linalg.norm(places - one, axis=2)
    distances[0] *= USUAL
    gap: Floats = distances.min(axis=0)
    return gap


def hex_colour(channel: int) -> str:
    """The colour of a channel, as CSS has it."""
    red, green, blue = class_colours()[channel].tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"
