"""Windows over an image too large to be predicted whole: they overlap, and what is kept of them covers it once."""

from __future__ import annotations

import itertools
from typing import NamedTuple

MARGIN = 8
"""Where a window meets another, the outer 1/8 of its side at least is not kept: the network sees too little around it there."""


class Span(NamedTuple):
    """A window along one direction, and what is kept of it; ends are exclusive."""

    begin: int
    end: int
    first: int
    last: int

    def scaled(self, small: int, large: int) -> Span:
        """The same in an image `large` pixels long instead of `small`, at the nearest pixels."""
        return Span(*((2 * place * large + small) // (2 * small) for place in self))


class Window(NamedTuple):
    """A window over the rows and columns of an image."""

    rows: Span
    columns: Span

    @property
    def source(self) -> tuple[slice, slice]:
        """The rows and columns that the network gets."""
        return slice(self.rows.begin, self.rows.end), slice(self.columns.begin, self.columns.end)

    @property
    def size(self) -> tuple[int, int]:
        """Its height and width."""
        return self.rows.end - self.rows.begin, self.columns.end - self.columns.begin

    @property
    def target(self) -> tuple[slice, slice]:
        """The rows and columns of the image that are taken from it."""
        return slice(self.rows.first, self.rows.last), slice(self.columns.first, self.columns.last)

    @property
    def inner(self) -> tuple[slice, slice]:
        """The same rows and columns, counted in the window."""
        rows, columns = (slice(span.first - span.begin, span.last - span.begin) for span in self)
        return rows, columns

    def scaled(self, small: tuple[int, int], large: tuple[int, int]) -> Window:
        """The same in an image of height and width `large` instead of `small`."""
        return Window(self.rows.scaled(small[0], large[0]), self.columns.scaled(small[1], large[1]))


def windows(size: tuple[int, int], side: int) -> list[Window]:
    """Windows of `side` pixels over an image of `size`, height and width; of fewer where it has fewer."""
    rows, columns = (spans(length, side) for length in size)
    return [Window(row, column) for row in rows for column in columns]


def spans(length: int, side: int) -> list[Span]:
    """Windows along one direction.

    Example:
        >>> [tuple(span) for span in spans(20, side=16)]
        [(0, 16, 0, 10), (4, 20, 10, 20)]
    """
    if length <= side:
        return [Span(0, length, 0, length)]
    count = -(-(length - side) // max(1, side - 2 * (side // MARGIN))) + 1
    begins = [round(number * (length - side) / (count - 1)) for number in range(count)]
    borders = [0, *((left + side + right) // 2 for left, right in itertools.pairwise(begins)), length]
    return [Span(begin, begin + side, *kept) for begin, kept in zip(begins, itertools.pairwise(borders), strict=True)]
