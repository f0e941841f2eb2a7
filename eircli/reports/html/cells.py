"""Tables of a report: cells that can be sorted by and shaded by their figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SWITCH = 65
"""From this share on a shaded cell's text is that of the other end, since there black and white are equally legible on it (style.css)."""


@dataclass(frozen=True)
class Cell:
    """A cell's text, and the figure behind it."""

    text: str
    value: float | None = None
    """What it is sorted by; None: text, or nothing there."""
    heat: float | None = None
    """0 to 100: how deeply it is shaded; None: not at all."""
    css: str = ""
    note: str = ""
    """Said when it is pointed at."""

    @property
    def classes(self) -> str:
        """Of the style sheet."""
        shade = [] if self.heat is None else ["heat", "deep"] if self.heat > SWITCH else ["heat"]
        return " ".join([*shade, *([self.css] if self.css else [])])


@dataclass(frozen=True)
class Table:
    """A table, its first column the names of its rows."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    css: str = ""
    sortable: bool = True
    texts: int = 1
    """How many columns, from the left, are text."""


NOTHING = Cell("–")


def figure(value: float | None, digits: int = 1) -> Cell:
    """A figure, or a dash."""
    return (
        NOTHING if value is None else Cell(with_minus(f"{round(value, digits) + 0.0:.{digits}f}"), value)
    )  # + 0.0: no minus before nothing


def with_minus(text: str) -> str:
    """A figure with a minus sign for the hyphen, which is as wide as a digit."""
    return text.replace("-", "−")


def shaded(value: float | None) -> Cell:
    """A figure in percent, shaded by itself; or a dash."""
    return NOTHING if value is None else Cell(f"{value:.1f}", value, heat=round(min(100.0, max(0.0, value)), 1))


def count(value: int | None) -> Cell:
    """A whole number with its thousands apart, or a dash."""
    return NOTHING if value is None else Cell(f"{value:,}", value)


def byte_count(value: float | None) -> Cell:
    """Bytes in a unit that suits, or a dash."""
    if value is None:
        return NOTHING
    factor, unit = next((f, u) for f, u in ((1, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB")) if value < 1000 * f or u == "GB")
    digits = 0 if value / factor >= 10 or factor == 1 else 1
    return Cell(f"{value / factor:.{digits}f} {unit}", value, note=f"{value:,.0f} bytes")
