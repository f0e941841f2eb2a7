"""Several runs in a report: grouped over their seeds, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eircli.common.errors import UserError
from eircli.reports.comparison import FIGURES, Comparison, Group, Summary, compare
from eircli.reports.comparison_text import difference_text, explanation, plus_minus
from eircli.reports.html.cells import NOTHING, Cell, Table, byte_count, figure, with_minus
from eircli.reports.html.facts import RunFacts
from eircli.reports.html.svg import Chart, Line, line_chart


@dataclass(frozen=True)
class Compared:
    """Runs side by side."""

    chart: Chart
    tables: list[Table]
    explanation: str


def compared(runs: Sequence[RunFacts]) -> tuple[Compared | None, list[str]]:
    """The comparison of the runs whose steps are all evaluated, and a line about every run, or all, left out of it."""
    whole = [facts for facts in runs if len(facts.results) == len(facts.run.schedule)]
    left_out = [f"{facts.run.directory.path}: not every step is evaluated yet" for facts in runs if facts not in whole]
    if not whole:
        return None, left_out
    try:
        found = compare([facts.run for facts in whole])
    except UserError as error:  # whatever cannot be compared still has its own chapter
        return None, [*left_out, str(error)]
    several = any(len(group.seeds) > 1 for group in found.runs)
    tables = [_last_table(found), _seed_table(found)] if several else [_last_table(found)]
    return Compared(_chart(found), tables, explanation(found)), left_out


def _chart(found: Comparison) -> Chart:
    last = max(len(group.steps) for group in found.runs) - 1
    lines = [_line(group, last) for group in found.runs]
    title = "mIoU of all classes after each step, of every group"
    return line_chart(title, lines, "step", "mIoU, %", (560, 320), whole=True)


def _line(group: Group, last: int) -> Line:
    """Its mean with the deviation as a band; a single step (joint training) stands where the others end."""
    first = last if len(group.steps) == 1 else 0
    known = [(first + step, one["all"]) for step, one in enumerate(group.steps) if one["all"].mean is not None]
    points = [(step, summary.mean or 0.0) for step, summary in known]
    band = [summary.sd or 0.0 for _, summary in known]
    return Line(group.name, points, band if any(band) else None, marked=True)


def _last_table(found: Comparison) -> Table:
    rows = [
        [
            Cell(group.name),
            Cell(str(len(group.seeds)), len(group.seeds), note=f"seeds {', '.join(map(str, group.seeds))}"),
            byte_count(group.memory_bytes.mean if group.memory_bytes else None),
            *(_summary(group.steps[-1][name]) for name in FIGURES),
            NOTHING if group.difference is None else Cell(with_minus(difference_text(group.difference)), group.difference.mean),
        ]
        for group in found.runs
    ]
    columns = ["run", "seeds", "memory", *FIGURES, f"less {found.against}"]
    return Table("mIoU in percent after the last step, mean ± standard deviation over the seeds", columns, rows)


def _seed_table(found: Comparison) -> Table:
    seeds = sorted({seed for group in found.runs for seed in group.seeds})
    rows = []
    for group in found.runs:
        last = group.steps[-1]["all"]
        own = dict(zip(group.seeds, last.values, strict=True))
        rows.append([Cell(group.name), *(figure(own.get(seed)) for seed in seeds), _summary(last)])
    columns = ["run", *(f"seed {seed}" for seed in seeds), "mean ± deviation"]
    return Table("mIoU of all classes after the last step, seed by seed", columns, rows)


def _summary(summary: Summary) -> Cell:
    return Cell(with_minus(plus_minus(summary)), summary.mean)
