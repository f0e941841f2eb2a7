"""What the commands print: tables of figures on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.box import HORIZONTALS
from rich.console import Console, Group
from rich.table import Table

from eircli.common.types import BACKGROUND
from eircli.reports.status import NEEDED, RunStatus
from eircli.reports.step import StepFacts
from eircli.run.results import StepResults

if TYPE_CHECKING:
    from eircli.config.schema import Setting
    from eircli.reports.bank import BankFacts
    from eircli.reports.predictions import Prediction

TABLE_WIDTH = 120
"""Table width where stdout is no terminal."""


def stdout() -> Console:
    """The console for results."""
    console = Console()
    return console if console.is_terminal else Console(width=TABLE_WIDTH)


def percent(value: float | None) -> str:
    """A figure in percent, or a dash."""
    return "–" if value is None else f"{value:.1f}"


@dataclass(frozen=True)
class FinishedRun:
    """A run and the figures of its steps."""

    name: str
    run_dir: str
    method: str
    seed: int
    steps: list[StepResults]


def protocol_table(runs: Sequence[FinishedRun]) -> Group:
    """The runs side by side, step by step."""
    title = "mIoU in percent, after each step"
    table = Table()
    for name, style in (("step", "dim"), ("run", "bold")):
        table.add_column(name, style=style, no_wrap=True)
    for name in ("old", "new", "all", "harmonic", "old classes' pixels\ntaken by background"):
        table.add_column(name, justify="right")
    for number in sorted({step.step for run in runs for step in run.steps}):
        for run in runs:
            for step in run.steps:
                figures = (step.old, step.new, step.all, step.harmonic, step.old_taken_by_background)
                if step.step == number:
                    table.add_row(str(number), run.name, *(percent(figure) for figure in figures))
        table.add_section()
    return Group(title, table)


def settings_table(settings: Sequence[Setting]) -> Table:
    """Keys, values and meanings of a recipe's settings."""
    table = Table(box=HORIZONTALS, show_lines=True)
    table.add_column("key", no_wrap=True)
    table.add_column("value", overflow="fold", max_width=24)
    table.add_column("meaning")
    for key, words, value, meaning in settings:
        table.add_row(key, value, "\n".join(filter(None, (meaning, f"[dim]{words}[/dim]" if words else ""))))
    return table


def areas_table(predictions: Sequence[Prediction]) -> Table:
    """What was found in images: of each class, in how many, and its share of all pixels."""
    names: dict[str, list[int]] = {}
    for prediction in predictions:
        for area in prediction.classes:
            names.setdefault(area.name, []).append(area.pixels)
    pixels = sum(map(sum, names.values()))
    table = Table()
    table.add_column("class", no_wrap=True)
    for column in ("images", "share of all pixels"):
        table.add_column(column, justify="right")
    for name, found in sorted(names.items(), key=lambda pair: -sum(pair[1])):
        table.add_row(name, str(len(found)), percent(100 * sum(found) / pixels) + "%")
    return table


def results_table(results: StepResults, name: str) -> Group:
    """One step's figures, class by class."""
    title = f"{name}, after step {results.step}: IoU in percent ({results.size}, {results.images} images)"
    table = Table()
    table.add_column("class", no_wrap=True)
    for column in ("learned at step", "IoU", "forgotten", "taken by background"):
        table.add_column(column, justify="right")
    for row in results.classes:
        learned = "–" if row.id == BACKGROUND else str(row.step)
        table.add_row(row.name, learned, percent(row.iou), percent(row.forgetting), percent(row.taken_by_background))
    return Group(title, table)


def summary_lines(results: StepResults) -> list[str]:
    """The figures of a step in words, with the conventions they follow."""
    named = {"old": results.old, "new": results.new, "all": results.all, "harmonic": results.harmonic}
    figures = "   ".join(f"{name} {percent(figure)}" for name, figure in named.items())
    convention = "counts 0" if results.absent_class == "zero" else "is left out"
    return [
        f"mIoU: {figures}",
        f"average of all over the steps so far: {percent(results.average_all)}   "
        f"old classes' pixels taken by background: {percent(results.old_taken_by_background)}",
        f"old: background and the base step's classes; new: those learned later; a class without a pixel {convention}",
    ]


def bank_table(facts: BankFacts) -> Group:
    """Exemplars per class."""
    chosen = f" chosen by rule {facts.rule} (budget {facts.budget})" if facts.rule else ""
    title = f"memory of step {facts.step}: {facts.exemplars} {facts.kind}{chosen}, {facts.bytes:,} bytes"
    table = Table()
    table.add_column("class", no_wrap=True)
    table.add_column(facts.kind, justify="right")
    for name, count in facts.per_class.items():
        table.add_row(name, f"{count}{'  (fell short)' if name in facts.short else ''}")
    return Group(title, table)


def step_table(facts: StepFacts) -> Group:
    """What a step consists of."""
    title = f"step {facts.step} of 0..{facts.steps - 1}, {facts.setting}: images that hold each class"
    table = Table()
    for column in ("id", "class", "learned"):
        table.add_column(column, no_wrap=True)
    for part in facts.parts:
        table.add_column(part, justify="right")
    for group, classes in (("new", facts.new), ("before", facts.old)):
        for class_id, name in classes.items():
            table.add_row(str(class_id), name, group, *(str(part.per_class[name]) for part in facts.parts.values()))
        table.add_section()
    table.add_row("", "images", "", *(str(part.images) for part in facts.parts.values()), style="bold")
    return Group(title, table)


def status_table(facts: RunStatus) -> Group:
    """Which stages of each step are done."""
    title = f"{facts.name} ({facts.method}) in {facts.run_dir}"
    table = Table()
    for column in ("step", *NEEDED):
        table.add_column(column)
    for row in facts.steps:
        cells = []
        for artifact in NEEDED:
            if artifact not in row.done:
                cells.append("–")
            elif row.done[artifact]:
                cells.append(f"done {row.made[artifact]}")
            else:
                cells.append("unfinished" if artifact == "checkpoint" and row.unfinished else "to do")
        table.add_row(str(row.step), *cells)
    return Group(title, table)
