"""`eir show-memory`: what a step keeps of the old classes, drawn: a row per class, each exemplar with its outline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from eircli.common.errors import UserError
from eircli.common.io import atomic_write
from eircli.common.types import Sample, UInt8Array
from eircli.memory.bank import Bank
from eircli.memory.kinds import memory_kind
from eircli.memory.kinds.exemplars import ExemplarKind
from eircli.reports.colours import palette
from eircli.run.run import Run

TILE, LINE, GAP, NAME = 112, 14, 6, 110
"""Side of an exemplar's picture, height of a line of text, room between, width of the names' column; pixels."""


def draw_memory(run: Run, step: int, most: int, path: Path) -> int:
    """Draw the memory of a step into a file: at most `most` exemplars a class, evenly spaced.

    Returns:
        How many exemplars are drawn.

    Raises:
        UserError: it is not built or damaged, or keeps nothing to look at.
    """
    file = run.directory.verify(step, "bank")
    kind = memory_kind(run.directory.steps[step]["bank"].facts["kind"])
    if not isinstance(kind, ExemplarKind):
        raise UserError(
            f"{file}: this kind of memory keeps numbers alone, nothing to look at; see eir build-memory {run.directory.path} --step {step}"
        )
    bank, shown = Bank(file), kind.shown(file)
    rows = [(run.class_name(class_id), places) for class_id, places in bank.classes.items()]
    widest = max(min(most, len(places)) for _, places in rows)
    sheet = Image.new("RGB", (NAME + widest * (TILE + GAP) + GAP, len(rows) * (TILE + 2 * LINE + GAP) + GAP), "white")
    pen, font, drawn = ImageDraw.Draw(sheet), ImageFont.load_default(11), 0
    for row, (name, places) in enumerate(rows):
        top = GAP + row * (TILE + 2 * LINE + GAP)
        pen.multiline_text((GAP, top), f"{name}\n{len(places)} kept", "black", font)
        for column, position in enumerate(_some(places, most)):
            record, left = bank.record(position), NAME + column * (TILE + GAP)
            tile = _outlined(shown.load(position), record.class_id)
            sheet.paste(tile, (left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2))
            pen.text((left, top + TILE), _fitting(record.source, font), "black", font)
            pen.text((left, top + TILE + LINE), f"{record.area:,} px, {record.size:,} B", "dimgrey", font)
            drawn += 1
    with atomic_write(path) as out:
        sheet.save(out, "PNG", optimize=True)
    return drawn


def _some(places: range, most: int) -> Iterator[int]:
    yield from np.unique(np.linspace(places.start, places.stop - 1, min(most, len(places))).round().astype(int)).tolist()


def _outlined(shown: Sample, class_id: int) -> Image.Image:
    """An exemplar's picture, scaled into a tile, the rim of its class in that class's colour."""
    height, width = shown.label.shape
    scale = TILE / max(height, width)
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    picture = np.array(Image.fromarray(shown.image).resize(size, Image.Resampling.BILINEAR))
    mask: NDArray[np.bool_] = np.array(Image.fromarray(shown.label).resize(size, Image.Resampling.NEAREST)) == class_id
    rim: NDArray[np.bool_] = mask & ~ndimage.binary_erosion(mask, border_value=0)
    colour: UInt8Array = palette()[class_id]
    picture[rim] = colour
    return Image.fromarray(picture)


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The end of a text that fits under a tile."""
    if font.getlength(text) <= TILE:
        return text
    while text and font.getlength("…" + text) > TILE:
        text = text[1:]
    return "…" + text
