"""A run's figures as tables and charts: old / new / all, class by class, the confusion matrix, the training."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as Xml

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from eircli.common.types import BACKGROUND
from eircli.reports.html.cells import NOTHING, Cell, Table, count, figure, shaded
from eircli.reports.html.facts import Training
from eircli.reports.html.svg import Chart, Line, Point, line_chart
from eircli.reports.html.uris import png_uri
from eircli.run.results import ClassResult, StepResults

Results = dict[int, StepResults]

MOST_POINTS = 500
"""Of a line over iterations."""

MOST_IN_TABLE = 32
"""Channels of a confusion matrix that is a table; a larger one is a picture."""

MISTAKES = 15
"""How many are listed."""

CELL = 12
"""Side of a cell of a pictured confusion matrix."""

NAME_ROOM = 150
"""For the names beside it."""


def figures_table(results: Results) -> Table:
    """A row per step."""
    rows = [
        [
            Cell(f"step {step}", step),
            figure(one.old),
            figure(one.new),
            figure(one.all),
            figure(one.harmonic),
            figure(one.average_all),
            figure(one.old_taken_by_background),
            count(one.images),
        ]
        for step, one in results.items()
    ]
    columns = ["after", "old", "new", "all", "harmonic", "average of all", "old taken by background", "test images"]
    return Table("mIoU in percent after each step", columns, rows)


def figures_chart(results: Results) -> Chart:
    """Old, new and all over the steps."""
    figures = {name: [(step, getattr(one, name)) for step, one in results.items()] for name in ("all", "old", "new")}
    lines = [Line(name, [(s, v) for s, v in points if v is not None], marked=True) for name, points in figures.items()]
    shown = [line for line in lines if line.points]
    return line_chart("mIoU of old, new and all classes after each step", shown, "step", "mIoU, %", whole=True, top=100)


def class_table(results: Results, steps: int, what: str) -> Table:
    """Class × step of IoU (`iou`) or the share of pixels taken by background (`taken_by_background`), shaded."""
    rows: dict[int, ClassResult] = {row.id: row for one in results.values() for row in one.classes}
    by_step = {step: {row.id: row for row in one.classes} for step, one in results.items()}
    lines = []
    for class_id, row in rows.items():
        if what != "iou" and class_id == BACKGROUND:
            continue
        learned = NOTHING if class_id == BACKGROUND else Cell(str(row.step), row.step)
        cells = [_of_class(by_step, step, class_id, row.step, what) for step in range(steps)]
        newest = by_step[max(by_step)].get(class_id)
        last = [figure(newest.forgetting if newest else None)] if what == "iou" else []
        lines.append([Cell(row.name), learned, *cells, *last])
    caption = {
        "iou": "IoU in percent of every class",
        "taken_by_background": "Percent of each class’s pixels predicted as background",
    }
    columns = ["class", "learned", *(f"step {step}" for step in range(steps)), *(["forgotten"] if what == "iou" else [])]
    return Table(caption[what], columns, lines, css="shaded" if what == "iou" else "shaded warm")


def _of_class(by_step: dict[int, dict[int, ClassResult]], step: int, class_id: int, learned: int, what: str) -> Cell:
    if step not in by_step:
        return Cell("–" if step >= learned else "", css="" if step >= learned else "before", note="not evaluated")
    row = by_step[step].get(class_id)
    return Cell("", css="before", note="not learned yet") if row is None else shaded(getattr(row, what))


def shares(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Percent of every true channel's pixels, float64 [K, K], of counts [K, K]; a channel without pixels has zeros."""
    found: NDArray[np.float64] = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    return found


def confusion_table(confusion: NDArray[np.int64], names: Sequence[str]) -> Table:
    """Counts int64 [K, K] as percent of each row; shares below a half are left blank."""
    rows = []
    for truth, row in enumerate(shares(confusion).tolist()):
        cells = [
            Cell(f"{share:.0f}" if share >= 0.5 else "", share, round(share, 1), "own" if truth == k else "", f"{share:.2f} %")
            for k, share in enumerate(row)
        ]
        rows.append([Cell(names[truth]), *cells, count(int(confusion[truth].sum()))])
    return Table("Percent of each true class’s pixels", ["truth ↓  predicted →", *names, "pixels"], rows, css="shaded matrix")


def confusion_picture(confusion: NDArray[np.int64], names: Sequence[str]) -> Markup:
    """Counts int64 [K, K] as a picture with a name at every row and column, for many classes."""
    side, shown = CELL * len(names), shares(confusion) / 100
    paper, ink = np.array([244, 246, 248]), np.array([11, 60, 93])
    pixels = (paper + (ink - paper) * shown[..., None] ** 0.6).round().astype(np.uint8)
    size = str(side + NAME_ROOM)
    root = Xml.Element("svg", {"viewBox": f"0 0 {size} {size}", "width": size, "height": size, "role": "img", "class": "pixels"})
    Xml.SubElement(root, "title").text = "Confusion matrix: rows truth, columns prediction, dark where many pixels are"
    where = {"x": str(NAME_ROOM), "y": str(NAME_ROOM), "width": str(side), "height": str(side)}
    Xml.SubElement(root, "image", {"href": png_uri(pixels), "preserveAspectRatio": "none", **where})
    for channel, name in enumerate(names):
        middle = NAME_ROOM + CELL * (channel + 0.5)
        short = name if len(name) <= 24 else name[:23] + "…"
        row = Xml.SubElement(root, "text", {"x": str(NAME_ROOM - 5), "y": str(middle + 3.5), "text-anchor": "end"})
        column = Xml.SubElement(root, "text", {"transform": f"translate({middle + 3.5} {NAME_ROOM - 5}) rotate(-90)"})
        row.text = column.text = short
    return Markup(Xml.tostring(root, encoding="unicode"))  # ElementTree has escaped all text


def mistakes_table(confusion: NDArray[np.int64], names: Sequence[str]) -> Table:
    """The largest shares off the diagonal of counts int64 [K, K]."""
    wrong = shares(confusion)
    np.fill_diagonal(wrong, 0)
    largest = np.argsort(-wrong, axis=None, kind="stable")[:MISTAKES].tolist()
    places = [divmod(place, len(names)) for place in largest if wrong.flat[place] > 0]
    rows = [[Cell(names[t]), Cell(names[p]), figure(float(wrong[t, p])), count(int(confusion[t, p]))] for t, p in places]
    return Table("Largest mistakes", ["truth", "predicted", "% of the class", "pixels"], rows, texts=2)


def thinned(points: Sequence[Point]) -> tuple[list[Point], int]:
    """At most `MOST_POINTS` points, each the mean of so many neighbours."""
    size = -(-len(points) // MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups], max(size, 1)


def training_charts(step: int, training: Training) -> tuple[Chart, Chart, int]:
    """A step's losses, its learning rate, and how many entries of the journal a point stands for."""
    thin = {name: thinned(points) for name, points in training.losses.items()}
    losses = [Line(name, points) for name, (points, _) in thin.items()]
    rate, size = thinned(training.rate)
    return (
        line_chart(f"Losses of step {step} by iteration", losses, "iteration", "loss", (360, 210)),
        line_chart(
            f"Learning rate of step {step} by iteration", [Line("learning rate", rate)], "iteration", "learning rate", (360, 150)
        ),
        max([size, *(size for _, size in thin.values())]),
    )
