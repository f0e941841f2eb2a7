"""A comparison of runs as a table for the terminal, markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from eircli.reports.comparison import Comparison, Group, Summary
from eircli.reports.comparison_text import difference_text, explanation, memory_text, plus_minus
from eircli.reports.tables import TABLE_WIDTH

Cells = list[list[str]]


def render(facts: Comparison, layout: str, all_steps: bool) -> str:
    """The comparison's last step, or all of them one after the other."""
    last = _last_step(facts)
    steps = list(range(last + 1)) if all_steps else [last]
    if layout == "csv":
        return _csv(facts, steps)
    tables = [(step, cells(facts, step)) for step in steps]
    how = {"table": _terminal, "markdown": _markdown, "latex": _latex}[layout]
    return "\n\n".join(how(table, _title(facts, step, step == last), facts) for step, table in tables)


def _last_step(facts: Comparison) -> int:
    return max(len(group.steps) for group in facts.runs) - 1


def _title(facts: Comparison, step: int, is_last: bool) -> str:
    return f"mIoU in percent after step {step}" + (f"; difference: all less that of {facts.against}" if is_last else "")


def _at(facts: Comparison, step: int) -> Iterator[tuple[Group, dict[str, Summary]]]:
    """The groups and their figures at one step; runs with fewer steps (joint training) stand at the last."""
    last = _last_step(facts)
    for group in facts.runs:
        if step == last or len(group.steps) > last:
            yield group, group.steps[len(group.steps) - 1 if step == last else step]


def cells(facts: Comparison, step: int) -> Cells:
    """Header and rows of one step."""
    last = _last_step(facts)
    names = list(facts.runs[0].steps[0])
    header = ["run", "seeds", "memory", *names]
    if step == last:
        header.append("difference")
    rows = []
    for group, figures in _at(facts, step):
        line = [group.name, str(len(group.seeds)), memory_text(group), *(plus_minus(figures[name]) for name in names)]
        rows.append(line + ([difference_text(group.difference)] if step == last else []))
    return [header, *rows]


def _terminal(table: Cells, title: str, facts: Comparison) -> str:
    buffer = io.StringIO()
    screen = Console()
    width = screen.width if screen.is_terminal else TABLE_WIDTH + 40
    console = Console(file=buffer, width=width, force_terminal=screen.is_terminal)
    console.print(title, highlight=False)
    for part in _fitting(table, width):
        console.print(_drawn(part))
    console.print(explanation(facts), highlight=False)
    return buffer.getvalue().rstrip("\n")


def _fitting(table: Cells, width: int) -> list[Cells]:
    """The table, or, where it is wider, its columns in two tables or more, each with the runs' names."""
    parts = [table]
    while _width(parts[-1]) > width and len(parts[-1][0]) > 2:
        whole = parts.pop()
        fits = next((n for n in range(len(whole[0]) - 1, 2, -1) if _width(_some(whole, n)) <= width), 2)
        parts += [_some(whole, fits), [[row[0], *row[fits:]] for row in whole]]
    return parts


def _width(table: Cells) -> int:
    """Of the table as it is drawn."""
    return 1 + sum(3 + max(len(row[column]) for row in table) for column in range(len(table[0])))


def _some(table: Cells, columns: int) -> Cells:
    return [row[:columns] for row in table]


def _drawn(table: Cells) -> Table:
    drawn = Table()
    for number, name in enumerate(table[0]):
        drawn.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
    for row in table[1:]:
        drawn.add_row(*row)
    return drawn


def _markdown(table: Cells, title: str, facts: Comparison) -> str:
    rule = ["---", *("---:" for _ in table[0][1:])]
    rows = [f"| {' | '.join(row)} |" for row in (table[0], rule, *table[1:])]
    return "\n".join([f"{title}:", "", *rows, "", f"({explanation(facts)}.)"])


def _latex(table: Cells, title: str, facts: Comparison) -> str:
    def line(row: Sequence[str]) -> str:
        escaped = (cell.replace("_", r"\_").replace("%", r"\%").replace(" ± ", r" $\pm$ ").replace("–", "--") for cell in row)
        return "  " + " & ".join(escaped) + r" \\"

    body = [line(table[0]), r"  \midrule", *(line(row) for row in table[1:])]
    note = explanation(facts).replace("%", r"\%").replace("±", r"$\pm$")
    columns = "l" + "r" * (len(table[0]) - 1)
    return "\n".join(
        [f"% {title}; {note}", rf"\begin{{tabular}}{{{columns}}}", r"  \toprule", *body, r"  \bottomrule", r"\end{tabular}"]
    )


def _csv(facts: Comparison, steps: Sequence[int]) -> str:
    """One table with the step as a column, every number in a column of its own; what is not there is empty."""
    names = list(facts.runs[0].steps[0])
    figures = [column for name in names for column in (name, f"{name} sd")]
    header = ["step", "run", "seeds", "memory bytes", *figures, "difference", "difference low", "difference high"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    for step in steps:
        for group, found in _at(facts, step):
            numbers = [number for name in names for number in (found[name].mean, found[name].sd)]
            of_pairs = group.difference if step == steps[-1] else None
            interval = (None, None) if of_pairs is None or of_pairs.interval is None else of_pairs.interval
            row = [step, group.name, len(group.seeds), group.memory_bytes and group.memory_bytes.mean, *numbers]
            writer.writerow([*row, of_pairs and of_pairs.mean, *interval])
    return buffer.getvalue().rstrip("\n")
