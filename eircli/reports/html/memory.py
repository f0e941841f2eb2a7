"""The memory of a run in a report: what each step's holds, and a contact sheet of the last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from eircli.common.types import UInt8Array
from eircli.config.memory_kinds import MEMORY_KINDS
from eircli.memory.bank import Bank
from eircli.memory.codecs import decode_pixels
from eircli.reports.html.cells import Cell, Table, byte_count, count
from eircli.reports.html.facts import RunFacts
from eircli.reports.html.uris import jpeg_uri

THUMBNAIL = 72
"""Longest side, pixels."""

MOST_PER_CLASS = 10

MOST_ON_SHEET = 400
"""Of all classes together; each has an even share, and at least two."""

QUALITY = 72


@dataclass(frozen=True)
class Strip:
    """Some exemplars of a class."""

    name: str
    held: int
    """How many there are."""
    bytes: int
    """Of all of them."""
    pictures: list[tuple[str, int, int]]
    """Data URI, width and height."""


def memory_table(facts: RunFacts) -> Table:
    """What each step's memory holds."""
    rows = []
    for step in facts.banks:
        entry = facts.run.directory.steps[step]["bank"]
        known = entry.facts
        rows.append(
            [
                Cell(f"step {step}", step),
                Cell(str(known["kind"])),
                Cell(str(known.get("rule", "–"))),
                Cell(str(known.get("budget", "–"))),
                count(int(known["exemplars"])),
                byte_count(int(known["bytes"])),
                byte_count(entry.size),
            ]
        )
    columns = ["trains", "kind", "rule", "budget", "exemplars", "their bytes", "file"]
    return Table("What each step trains with of the old classes", columns, rows, texts=4)


def contact_sheet(facts: RunFacts) -> tuple[int, list[Strip]] | None:
    """The last step that has a memory, and its exemplars by class; None if it keeps no pictures.

    Raises:
        UserError: the memory is damaged.
    """
    if not facts.banks:
        return None
    run, step = facts.run, facts.banks[-1]
    entry = run.directory.steps[step]["bank"]
    if not MEMORY_KINDS[entry.facts["kind"]].bounded:
        return None
    bank = Bank(run.directory.path / entry.file)
    most = min(MOST_PER_CLASS, max(2, MOST_ON_SHEET // max(1, len(bank.classes))))
    return step, [_strip(bank, run.class_name(class_id), places, most) for class_id, places in bank.classes.items()]


def _strip(bank: Bank, name: str, places: range, most: int) -> Strip:
    some = np.unique(np.linspace(places.start, places.stop - 1, min(most, len(places))).astype(int)).tolist()
    return Strip(
        name, len(places), _bytes(bank, places), [_thumbnail(decode_pixels(bank.record(place).pixels)) for place in some]
    )


def _bytes(bank: Bank, places: range) -> int:
    rows = bank.index[places.start : places.stop]
    lengths = sum(int(rows[part].sum()) for part in ("pixels_length", "annotation_length", "source_length"))
    return lengths + len(places) * bank.index.dtype.itemsize


def _thumbnail(pixels: UInt8Array) -> tuple[str, int, int]:
    """A picture uint8 [H, W, 3], small, as a JPEG's data URI with its size."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return jpeg_uri(picture, QUALITY), *picture.size
