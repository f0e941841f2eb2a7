"""How costs grow with the channels, the crop, the bank and the batch: `eir bench --growth`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from eircli.benchmark.measure import Case, Cost
from eircli.benchmark.parts import bank_costs, composition_case, loss_case, prediction_case
from eircli.benchmark.report import GrowthReport, GrowthTable
from eircli.benchmark.settings import Settings, machine
from eircli.common.errors import UserError
from eircli.common.io import atomic_write

CHANNELS = (2, 21, 151, 1000)
CROPS = (256, 512, 1024)
BANKS = (100, 1_000, 10_000, 100_000, 1_000_000)
BATCHES = (1, 2, 4, 8, 16, 32)
CROP, SLOT, STRIDE, LABELS = 512, 250, 16, 254
"""The crop and the stride at which other things grow; labels are bytes, so no composition has more channels."""


def measure_growth(settings: Settings) -> GrowthReport:
    """How costs grow with the channels, the crop, the batch and the bank."""
    device = settings.compute.device

    def grown(sizes: Sequence[int], cases: dict[str, Callable[[int], Case | None]]) -> GrowthTable:
        rows: dict[str, list[float | None]] = {}
        for label, make in cases.items():
            costs = [settings.costs([case])[0] if (case := make(size)) else None for size in sizes]
            rows[f"{label}, ms"] = [cost.milliseconds if cost else None for cost in costs]
            if costs[0] and costs[0].mebibytes is not None:
                rows[f"{label}, MiB"] = [cost.mebibytes if cost else None for cost in costs]
        return GrowthTable(list(sizes), rows)

    tables = {
        f"channels ({CROP} px)": grown(
            CHANNELS,
            {
                "losses and gradient, per batch of 2": lambda k: loss_case(2, k, CROP, STRIDE, device),
                "prediction, per image": lambda k: prediction_case(2, k, CROP, STRIDE, device),
                "composition, per image": lambda k: composition_case(2, max(k, 3), CROP, SLOT, device) if k <= LABELS else None,
            },
        ),
        "crop, pixels (21 channels)": grown(
            CROPS,
            {
                "losses and gradient, per batch of 2": lambda side: loss_case(2, 21, side, STRIDE, device),
                "prediction, per image": lambda side: prediction_case(2, 21, side, STRIDE, device),
                "composition, per image": lambda side: composition_case(2, 21, side, side // 2 - 6, device),
            },
        ),
        f"batch (21 channels, {CROP} px)": grown(
            BATCHES,
            {
                "losses and gradient, per batch": lambda n: loss_case(n, 21, CROP, STRIDE, device),
                "composition, per image": lambda n: composition_case(n, 21, CROP, SLOT, device),
            },
        ),
        "bank, instances": _banks(settings),
    }
    return GrowthReport(machine(device), tables)


def _banks(settings: Settings) -> GrowthTable:
    costs: list[list[Cost]] = [bank_costs(count, settings) for count in BANKS]
    return GrowthTable(
        list(BANKS),
        {
            "opening, ms": [opening.milliseconds for opening, _ in costs],
            "opening, MiB": [opening.mebibytes for opening, _ in costs],
            "a random instance, ms": [drawing.milliseconds for _, drawing in costs],
        },
    )


def draw_growth(report: GrowthReport, path: Path) -> None:
    """Draw the milliseconds of every table, both axes logarithmic.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("--plot: needs matplotlib; install it with: pip install matplotlib") from None
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    panels = figure.subplots(1, len(report.growth), sharey=True)
    for panel, (name, table) in zip(panels, report.growth.items(), strict=True):
        for label, values in table.rows.items():
            if label.endswith(", ms"):
                shown = [(size, value) for size, value in zip(table.sizes, values, strict=True) if value is not None]
                panel.loglog(*zip(*shown, strict=True), marker="o", label=label.removesuffix(", ms"))
        panel.set_xlabel(name)
        panel.set_xticks(table.sizes, [f"{size:,}" if size < 10_000 else f"{size:.0e}" for size in table.sizes])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7, loc="upper left")
    panels[0].set_ylim(top=30 * panels[0].get_ylim()[1])  # room for the legends
    panels[0].set_ylabel("milliseconds")
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)
