"""What `eir bench` prints."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from eircli.benchmark.report import BenchReport, Estimate, ExemplarBytes, GrowthReport, Machine, Utilisation


def bench_table(report: BenchReport) -> Group:
    """The machine, a table of all figures, and a recipe's hours."""
    table = Table()
    table.add_column("", no_wrap=True)
    against_plain = any(row.ratio is not None for rows in report.sections.values() for row in rows)
    columns = ["ms", "MiB", *(["plain ms", "plain MiB", "plain / fast"] if against_plain else [])]
    for column in columns:
        table.add_column(column, justify="right")
    for title, rows in report.sections.items():
        table.add_row(title, *[""] * len(columns), style="bold")
        for row in rows:
            fast = [number(row.milliseconds), number(row.mebibytes)]
            ratio = "" if row.ratio is None else f"{row.ratio:.1f} ×"
            plain = [number(row.plain_milliseconds), number(row.plain_mebibytes), ratio] if against_plain else []
            table.add_row(f"  {row.name}", *fast, *plain)
        table.add_section()
    return Group(
        _machine(report.machine),
        table,
        *_exemplar(report.exemplar_bytes),
        *_utilisation(report.utilisation),
        *_hours(report.estimate),
    )


def growth_table(report: GrowthReport) -> Group:
    """How costs grow, a table for each thing that grows."""
    parts: list[str | Table] = [_machine(report.machine)]
    for name, growth in report.growth.items():
        table = Table(title=name, title_justify="left")
        table.add_column("", no_wrap=True)
        for size in growth.sizes:
            table.add_column(f"{size:,}", justify="right")
        for label, values in growth.rows.items():
            table.add_row(label, *(number(value) for value in values))
        parts.append(table)
    return Group(*parts)


def number(value: float | None) -> str:
    """Three significant digits; nothing for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _machine(found: Machine) -> str:
    where = found.processor if found.device == "cpu" else f"{found.device}; {found.processor}"
    threads = f"{found.threads} thread{'s' * (found.threads > 1)}"
    return f"{where} ({found.instructions}), {threads}, torch {found.torch}; medians"


def _exemplar(found: ExemplarBytes | None) -> list[str]:
    if found is None:
        return []
    mean, median = number(found.mean), number(found.median)
    return [f"a stored exemplar takes {mean} bytes on average, median {median} ({found.exemplars} of them)"]


def _utilisation(found: dict[str, Utilisation]) -> list[str]:
    return [
        f"{precision}: an incremental step is {row.incremental_over_fine_tuning:.2f} × a fine-tuning step, and does "
        f"{row.gflop_per_second:,.0f} GFLOP/s, {100 * row.share:.0f}% of a large matrix multiplication's"
        for precision, row in found.items()
    ]


def _hours(found: Estimate) -> list[str]:
    steps = ", ".join(f"{step.hours:.2g}" for step in found.steps)
    return [f"the whole recipe in {found.precision}: about {found.hours:.3g} hours (step by step: {steps})"]
