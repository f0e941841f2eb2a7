"""A prediction over its image: the classes' colours, and a legend with their shares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from eircli.common.types import BACKGROUND, UInt8Array
from eircli.reports.colours import palette

OPACITY = 0.5

TEXT_SHARE, LEAST_TEXT = 0.03, 12
"""The height of the legend's text, of the image's height, and its least, pixels."""


def overlay(image: UInt8Array, class_map: UInt8Array, names: Sequence[str]) -> Image.Image:
    """The image with its classes' colours mixed in, and beneath it a legend of those that are there, largest first.

    Args:
        image: uint8 [H, W, 3].
        class_map: uint8 [H, W], numbers of `names`, whose first is background's.
    """
    colours = palette()[class_map]
    mixed = np.where((class_map == BACKGROUND)[..., None], image, (1 - OPACITY) * image + OPACITY * colours)
    picture = Image.fromarray(mixed.astype(np.uint8))
    counts = np.bincount(class_map.ravel(), minlength=len(names))
    shown = [number for number in np.argsort(-counts, kind="stable").tolist() if counts[number] and number != BACKGROUND]
    lines = [(number, f"{names[number]}  {100 * counts[number] / class_map.size:.1f}%") for number in shown]
    return _with_legend(picture, lines or [(BACKGROUND, "background alone")])


def _with_legend(picture: Image.Image, lines: Sequence[tuple[int, str]]) -> Image.Image:
    """The picture over its legend: entries side by side, in as many rows as they need."""
    height = max(LEAST_TEXT, round(TEXT_SHARE * picture.height))
    font, gap = ImageFont.load_default(height), height // 2
    widths = [round(font.getlength(text)) + height + 2 * gap for _, text in lines]
    width = max(picture.width, *widths)
    places, left, top = [], gap, gap
    for entry in widths:
        if left > gap and left + entry > width:
            left, top = gap, top + height + gap
        places.append((left, top))
        left += entry
    sheet = Image.new("RGB", (width, picture.height + top + height + 2 * gap), "white")
    sheet.paste(picture, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for (number, text), (left, top) in zip(lines, places, strict=True):
        at = (left, picture.height + top)
        pen.rectangle((*at, at[0] + height - 1, at[1] + height - 1), fill=tuple(palette()[number].tolist()), outline="black")
        pen.text((at[0] + height + gap // 2, at[1] + height // 2), text, "black", font, anchor="lm")
    return sheet
