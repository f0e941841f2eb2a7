"""Line charts as inline SVG: coloured by the style sheet, so that they suit light, dark and paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as Xml

from markupsafe import Markup

Point = tuple[float, float]

COLOURS = 6
"""Colours of lines in the style sheet; later lines take them again with other dashes."""

WIDE = 500
"""A wider drawing has larger letters on a phone."""

LEFT, RIGHT, TOP, BOTTOM = 46, 16, 28, 42
"""Room around the plot for labels, in units of the drawing."""


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str
    points: Sequence[Point]
    band: Sequence[float] | None = None
    """Half the height of a band around each point."""
    marked: bool = False
    """Whether each point has a dot, which says its figures when pointed at."""


@dataclass(frozen=True)
class Chart:
    """A drawing with its legend."""

    svg: Markup
    legend: list[tuple[str, str]]
    """Name and class (of the style sheet) of every line."""


def line_class(number: int) -> str:
    """The class of a chart's line, in the style sheet: its colour and its dashes."""
    return f"line c{number % COLOURS} d{number // COLOURS % 4}"


def line_chart(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    size: tuple[int, int] = (440, 270),
    whole: bool = False,
    top: float | None = None,
) -> Chart:
    """A chart from zero upwards.

    Args:
        lines: at least one point in all.
        whole: the horizontal axis counts whole things, such as steps.
        top: the least upper end of the vertical axis.
    """
    frame = _Frame.around(lines, size, whole, top)
    css = "chart wide" if size[0] > WIDE else "chart"
    root = Xml.Element("svg", {"viewBox": f"0 0 {size[0]} {size[1]}", "role": "img", "class": css})
    Xml.SubElement(root, "title").text = title
    _draw_axes(root, frame, x_label, y_label)
    for number, line in reversed(list(enumerate(lines))):
        _draw_line(root, frame, line, line_class(number))
    svg = Markup(Xml.tostring(root, encoding="unicode"))  # ElementTree has escaped all text
    return Chart(svg, [(line.name, line_class(number)) for number, line in enumerate(lines)])


@dataclass(frozen=True)
class _Frame:
    """Where figures lie on the drawing."""

    width: int
    height: int
    x_ticks: list[float]
    y_ticks: list[float]
    x_ends: Point

    @classmethod
    def around(cls, lines: Sequence[Line], size: tuple[int, int], whole: bool, top: float | None) -> _Frame:
        xs = [x for line in lines for x, _ in line.points]
        ys = [y + h for line in lines for (_, y), h in zip(line.points, line.band or [0.0] * len(line.points), strict=True)]
        low, high = (min(xs), max(xs)) if whole else (0.0, max(xs))
        if low == high:
            low, high = low - 0.5, high + 0.5
        x_ticks = [tick for tick in ticks(low, high, 5, whole) if low <= tick <= high]
        highest = max([*ys, top or 0.0])
        return cls(size[0], size[1], x_ticks, ticks(0.0, highest if highest > 0 else 1.0, max(2, size[1] // 50)), (low, high))

    def x(self, value: float) -> float:
        low, high = self.x_ends
        return LEFT + (value - low) / (high - low) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return self.height - BOTTOM - value / self.y_ticks[-1] * (self.height - TOP - BOTTOM)


def ticks(low: float, high: float, about: int, whole: bool = False) -> list[float]:
    """Round numbers, about so many, of which the last is `high` or beyond.

    Example:
        >>> ticks(0, 93, 5)
        [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    step = max(1.0, step) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.ceil(high / step - 1e-9) + 1)]


def _draw_axes(root: Xml.Element, frame: _Frame, x_label: str, y_label: str) -> None:
    bottom = frame.height - BOTTOM
    for tick in frame.y_ticks:
        y = frame.y(tick)
        attributes = {"x1": _at(LEFT), "x2": _at(frame.width - RIGHT), "y1": _at(y), "y2": _at(y)}
        Xml.SubElement(root, "line", {"class": "axis" if tick == 0 else "grid", **attributes})
        _text(root, f"{tick:.6g}", LEFT - 8, y + 4, "end")
    for tick in frame.x_ticks:
        _text(root, f"{tick:.6g}", frame.x(tick), bottom + 16, "middle")
    _text(root, x_label, (LEFT + frame.width - RIGHT) / 2, frame.height - 6, "middle")
    _text(root, y_label, 2, 13, "start")


def _draw_line(root: Xml.Element, frame: _Frame, line: Line, css: str) -> None:
    group = Xml.SubElement(root, "g", {"class": css})
    places = [(frame.x(x), frame.y(y)) for x, y in line.points]
    if line.band:
        edges = [(x, y + h) for (x, y), h in zip(line.points, line.band, strict=True)]
        edges += [(x, max(0.0, y - h)) for (x, y), h in reversed(list(zip(line.points, line.band, strict=True)))]
        Xml.SubElement(group, "path", {"class": "band", "d": _path([(frame.x(x), frame.y(y)) for x, y in edges]) + "Z"})
    if len(places) > 1:
        Xml.SubElement(group, "path", {"class": "stroke", "d": _path(places)})
    for (x, y), (across, up) in zip(line.points, places, strict=True):
        if line.marked or len(places) == 1:
            dot = Xml.SubElement(group, "circle", {"cx": _at(across), "cy": _at(up), "r": "3.5"})
            Xml.SubElement(dot, "title").text = f"{line.name}, {x:.6g}: {y:.4g}"


def _path(places: Sequence[Point]) -> str:
    return "M" + "L".join(f"{_at(x)} {_at(y)}" for x, y in places)


def _text(root: Xml.Element, text: str, x: float, y: float, anchor: str) -> None:
    Xml.SubElement(root, "text", {"x": _at(x), "y": _at(y), "text-anchor": anchor}).text = text


def _at(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
