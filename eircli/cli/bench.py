"""`eir bench`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from eircli.cli.options import AsJson, Device, Overrides, on_device, open_one, say
from eircli.common.errors import UserError
from eircli.common.records import to_json

EXAMPLE = "eir bench configs/voc-15-5-eir.yaml --set dataset.root=/path/to/VOC2012"


def command(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RECIPE]", help="What to measure with; without it the paper's PASCAL VOC setting on drawn images."
        ),
    ] = None,
    overrides: Overrides = None,
    device: Device = None,
    against_plain: Annotated[
        bool, typer.Option("--against-plain", help="Measure reference implementations beside the fast ones, and their ratios.")
    ] = False,
    growth: Annotated[
        bool, typer.Option("--growth", help="Instead, how costs grow with channels, crop, bank and batch.")
    ] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="With --growth: draw it into this PNG file.")] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Images in a step; by default 2, on a GPU the recipe's batch.")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads of the CPU; by default torch's.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="Approximate seconds per measurement.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Measure steps of EIR and of fine-tuning, and evaluation, on this machine; estimate a recipe's hours from them."""
    if plot is not None and not growth:
        raise UserError("--plot: draws growth; give --growth as well")
    from eircli.benchmark.growth import draw_growth, measure_growth
    from eircli.benchmark.settings import settings_for
    from eircli.benchmark.suite import made_up_run, measure_all
    from eircli.benchmark.tables import bench_table, growth_table
    from eircli.config.methods import DEFAULT_METHOD
    from eircli.reports.tables import stdout

    changes = [*(overrides or []), *on_device(device)]
    opened = made_up_run(changes) if recipe is None else nullcontext(open_one(recipe, changes, None, look_only=True).checked())
    with opened as run:
        settings = settings_for(run, batch, threads, seconds, against_plain, say)
        if (name := run.manifest.method.name) != DEFAULT_METHOD:
            say(f"incremental steps are measured with {DEFAULT_METHOD} and its defaults; the recipe's method is {name}")
        if growth:
            grown = measure_growth(settings)
            if plot is not None:
                draw_growth(grown, plot)
                say(f"picture: {plot}")
            print(to_json(grown)) if as_json else stdout().print(growth_table(grown))
            return
        report = measure_all(run, settings)
    print(to_json(report)) if as_json else stdout().print(bench_table(report))
