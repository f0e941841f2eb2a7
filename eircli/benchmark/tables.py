"""What `eir bench` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table

Facts = Mapping[str, Any]


def bench_report(facts: Facts) -> Group:
    """The machine, a table of all figures, and a recipe's hours."""
    table = Table()
    table.add_column("", no_wrap=True)
    against_plain = any(row["ratio"] is not None for rows in facts["sections"].values() for row in rows)
    columns = ["ms", "MiB", *(["plain ms", "plain MiB", "plain / fast"] if against_plain else [])]
    for column in columns:
        table.add_column(column, justify="right")
    for title, rows in facts["sections"].items():
        table.add_row(title, *[""] * len(columns), style="bold")
        for row in rows:
            fast = [number(row["milliseconds"]), number(row["mebibytes"])]
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.1f} ×"
            plain = [number(row["plain_milliseconds"]), number(row["plain_mebibytes"]), ratio] if against_plain else []
            table.add_row(f"  {row['name']}", *fast, *plain)
        table.add_section()
    return Group(
        _machine(facts["machine"]),
        table,
        *_exemplar(facts["exemplar_bytes"]),
        *_utilisation(facts["utilisation"]),
        *_hours(facts["estimate"]),
    )


def growth_report(facts: Facts) -> Group:
    """How costs grow, a table for each thing that grows."""
    parts: list[Any] = [_machine(facts["machine"])]
    for name, growth in facts["growth"].items():
        table = Table(title=name, title_justify="left")
        table.add_column("", no_wrap=True)
        for size in growth["sizes"]:
            table.add_column(f"{size:,}", justify="right")
        for label, values in growth["rows"].items():
            table.add_row(label, *(number(value) for value in values))
        parts.append(table)
    return Group(*parts)


def number(value: float | None) -> str:
    """Three significant digits; nothing for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _machine(facts: Facts) -> str:
    where = facts["processor"] if facts["device"] == "cpu" else f"{facts['device']}; {facts['processor']}"
    return f"{where} ({facts['instructions']}), {facts['threads']} thread{'s' * (facts['threads'] > 1)}, torch {facts['torch']}; medians"


def _exemplar(facts: Facts | None) -> list[str]:
    if facts is None:
        return []
    return [
        f"a stored instance takes {number(facts['mean'])} bytes on average, median {number(facts['median'])} ({facts['instances']} of them)"
    ]


def _utilisation(facts: Facts) -> list[str]:
    return [
        f"{precision}: an incremental step is {row['incremental_over_fine_tuning']:.2f} × a fine-tuning step, and does "
        f"{row['gflop_per_second']:,.0f} GFLOP/s, {100 * row['share']:.0f}% of a large matrix multiplication's"
        for precision, row in facts.items()
    ]


def _hours(facts: Facts) -> list[str]:
    steps = ", ".join(f"{step['hours']:.2g}" for step in facts["steps"])
    return [f"the whole recipe in {facts['precision']}: about {facts['hours']:.3g} hours (step by step: {steps})"]
