"""`eir run-protocol`."""

from __future__ import annotations

from typing import Annotated

import typer

from eircli.cli.finish import finish
from eircli.cli.options import AsJson, Device, Overrides, Recipes, RunDirectory, Seeds, open_all, say
from eircli.common.records import to_json

EXAMPLE = "eir run-protocol configs/shapes-6-2-finetune.yaml configs/shapes-6-2-eir.yaml"


def command(
    recipes: Recipes,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    device: Device = None,
    seeds: Seeds = None,
    pictures: Annotated[
        int, typer.Option("--pictures", min=0, help="Draw this many test images with every run's prediction.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Run all steps of one or more recipes, and print their figures side by side. What is done is not done again."""
    runs = open_all(recipes, overrides, seeds, run_dir, device)
    from eircli.reports.tables import FinishedRun, protocol_table, stdout

    finished = [
        FinishedRun(run.manifest.name, str(run.directory.path), run.manifest.method.name, run.manifest.seed, steps)
        for run, steps in zip(runs, finish(runs), strict=True)
    ]
    if pictures:
        from eircli.reports.pictures import draw_side_by_side
        from eircli.run.main_process import locked_by_main, write_on_main

        with locked_by_main(runs[-1]):
            say(f"picture: {write_on_main(runs[-1], lambda: draw_side_by_side(runs, pictures))}")
    if as_json:
        print(to_json({"runs": finished}))
        return
    if seeds:
        from eircli.reports.comparison import compare
        from eircli.reports.comparison_tables import render

        print(render(compare(runs), "table", all_steps=False))
    else:
        stdout().print(protocol_table(finished))
    for run in finished:
        print(f"{run.name}: {run.run_dir}")
    last = finished[-1]
    print(f"next: eir evaluate {last.run_dir} --step {last.steps[-1].step} --pictures 4")
