"""`eir evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from eircli.cli.options import Again, AsJson, Device, Overrides, Recipe, RunDirectory, Step, open_one, say
from eircli.common.records import to_json

EXAMPLE = "eir evaluate configs/shapes-6-2-eir.yaml --step 2 --pictures 4"


def command(
    recipe: Recipe,
    step: Step,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    device: Device = None,
    full_size: Annotated[
        bool, typer.Option("--full-size", help="Whole images at their own size instead of the paper's crops.")
    ] = False,
    pictures: Annotated[int, typer.Option("--pictures", min=0, help="Draw this many test images with truth and prediction.")] = 0,
    again: Again = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a trained step: IoU per class, old / new / all, forgetting, the share of pixels predicted as background."""
    run = open_one(recipe, overrides, run_dir, device).checked()
    from eircli.reports.pictures import draw_pictures
    from eircli.reports.tables import results_table, stdout, summary_lines
    from eircli.run.main_process import locked_by_main, write_on_main
    from eircli.stages.evaluate import evaluate

    with locked_by_main(run):
        results = evaluate(run, step, say, full_size, again)
        drawn = write_on_main(run, lambda: draw_pictures(run, step, pictures)) if pictures else []
    if as_json:
        print(to_json(results))
    else:
        console = stdout()
        console.print(results_table(results, run.manifest.name))
        for line in summary_lines(results):
            console.print(line, highlight=False)
    say(f"results: {run.directory.results(step, full_size)}")
    if drawn:
        say(f"pictures: {drawn[0].parent}")
