"""The command `eir bench`."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from eircli.cli.options import AsJson, Device, Overrides, on_device, open_bench, say
from eircli.common.errors import UserError


def bench_command(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RECIPE]", help="What to measure with; without it the paper's PASCAL VOC setting on drawn images."
        ),
    ] = None,
    overrides: Overrides = None,
    device: Device = None,
    against_plain: Annotated[
        bool, typer.Option("--against-plain", help="Measure the plain ways beside the fast ones, and their ratios.")
    ] = False,
    growth: Annotated[
        bool, typer.Option("--growth", help="Instead, how costs grow with channels, crop, bank and batch.")
    ] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="With --growth: draw it into this PNG file.")] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Images in a step; by default 2, on a GPU the recipe's batch.")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads of the CPU; by default torch's.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="Spent on each figure, about.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Measure what training and evaluation cost on this machine, and how many hours a recipe takes by that."""
    if plot is not None and not growth:
        raise UserError("--plot: draws growth; give --growth as well")
    from eircli.benchmark import tables as benchmark_report
    from eircli.benchmark.growth import draw_growth, growth_tables
    from eircli.benchmark.suite import bench_all, made_up_bench, settings_for
    from eircli.reports import tables as report

    changes = [*(overrides or []), *on_device(device)]
    opened = made_up_bench(changes) if recipe is None else nullcontext(open_bench(recipe, changes, None, look_only=True))
    with opened as bench:
        settings = settings_for(bench, batch, threads, seconds, against_plain, say)
        facts = growth_tables(settings) if growth else bench_all(bench, settings)
    if plot is not None:
        draw_growth(facts, plot)
        say(f"picture: {plot}")
    if as_json:
        print(json.dumps(facts))
        return
    report.stdout().print(benchmark_report.growth_report(facts) if growth else benchmark_report.bench_report(facts))
