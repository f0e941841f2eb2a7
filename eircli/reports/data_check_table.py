"""What `eir check-data` prints."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from eircli.data.check.report import DataReport, PartCounts


def data_table(report: DataReport) -> Group:
    """The parts in a line each, the classes, the steps."""
    classes = Table()
    for column in ("id", "class"):
        classes.add_column(column, no_wrap=True)
    for column in ("training images", "pixels", "test images", "pixels"):
        classes.add_column(column, justify="right")
    for row in report.classes:
        figures = (row.train_images, row.train_pixels, row.test_images, row.test_pixels)
        classes.add_row(str(row.id), row.name, *(f"{figure:,}" for figure in figures))
    steps = Table()
    for column in ("step", "learns"):
        steps.add_column(column)
    for column in ("training images", "test images"):
        steps.add_column(column, justify="right")
    for step in report.steps:
        steps.add_row(str(step.step), ", ".join(step.classes), f"{step.train_images:,}", f"{step.test_images:,}")
    return Group(_line("training", report.train), _line("test", report.test), classes, steps)


def finding_lines(report: DataReport) -> list[str]:
    """The errors, then the oddities, a line each, and how many there are."""
    errors, oddities = report.of("error"), report.of("oddity")
    lines = [f"{finding.severity}: {finding.line}" for finding in (*errors, *oddities)]
    return [*lines, f"errors: {len(errors)}, oddities: {len(oddities)}"]


def _line(name: str, part: PartCounts) -> str:
    sizes = [size for size in (part.smallest, part.largest) if size is not None]
    shown = " to ".join(dict.fromkeys(f"{width}x{height}" for width, height in sizes))
    unreadable = f" ({part.unreadable:,} cannot be used)" if part.unreadable else ""
    shares = f"background {100 * part.background:.1f}%, ignored {100 * part.ignored:.1f}% of the pixels"
    return f"{name}: {part.images:,} images{unreadable}" + (f", {shown} pixels" if shown else "") + f"; {shares}"
