"""A comparison of runs as a table for the terminal, markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from eircli.reports.comparison import Comparison
from eircli.reports.comparison_text import difference_text, explanation, memory_text, plus_minus
from eircli.reports.tables import TABLE_WIDTH

Cells = list[list[str]]


def render(facts: Comparison, layout: str, all_steps: bool) -> str:
    """The comparison's last step, or all of them one after the other."""
    last = _last_step(facts)
    tables = [(step, cells(facts, step)) for step in (range(last + 1) if all_steps else [last])]
    if layout == "csv":  # one table, with the step as a column
        header = ["step", *tables[-1][1][0]]
        rows = [[str(step), *row] for step, table in tables for row in table[1:]]
        return _csv([header, *(row + [""] * (len(header) - len(row)) for row in rows)])
    how = {"table": _terminal, "markdown": _markdown, "latex": _latex}[layout]
    return "\n\n".join(how(table, _title(facts, step, step == last), facts) for step, table in tables)


def _last_step(facts: Comparison) -> int:
    return max(len(group.steps) for group in facts.runs) - 1


def _title(facts: Comparison, step: int, is_last: bool) -> str:
    return f"mIoU in percent after step {step}" + (f"; difference: all less that of {facts.against}" if is_last else "")


def cells(facts: Comparison, step: int) -> Cells:
    """Header and rows of one step; runs with fewer steps (joint training) stand in the table of their last."""
    last = _last_step(facts)
    names = list(facts.runs[0].steps[0])
    header = ["run", "seeds", "memory", *names]
    if step == last:
        header.append("difference")
    rows = []
    for group in facts.runs:
        number = len(group.steps) - 1 if step == last else step
        if step < last and len(group.steps) <= last:
            continue
        figures = group.steps[number]
        line = [group.name, str(len(group.seeds)), memory_text(group), *(plus_minus(figures[name]) for name in names)]
        rows.append(line + ([difference_text(group.difference)] if step == last else []))
    return [header, *rows]


def _terminal(table: Cells, title: str, facts: Comparison) -> str:
    drawn = Table()
    for number, name in enumerate(table[0]):
        drawn.add_column(name, justify="left" if number == 0 else "right", no_wrap=number > 0, overflow="fold")
    for row in table[1:]:
        drawn.add_row(*row)
    buffer = io.StringIO()
    screen = Console()
    width = screen.width if screen.is_terminal else TABLE_WIDTH + 40
    console = Console(file=buffer, width=width, force_terminal=screen.is_terminal)
    console.print(title, highlight=False)
    console.print(drawn)
    console.print(explanation(facts), highlight=False)
    return buffer.getvalue().rstrip("\n")


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


def _csv(table: Cells) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(table)
    return buffer.getvalue().rstrip("\n")
