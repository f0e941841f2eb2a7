"""`eir show-step`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from eircli.cli.options import AsJson, Overrides, Recipe, RunDirectory, Step, open_one
from eircli.common.records import to_json

EXAMPLE = "eir show-step configs/voc-15-5-eir.yaml --step 1 --split train --ids"


def command(
    recipe: Recipe,
    step: Step,
    split: Annotated[Literal["train", "val", "test"], typer.Option("--split", help="Whose image ids --ids prints.")] = "train",
    ids: Annotated[
        bool, typer.Option("--ids", help="Print the ids of the split's images, one per line, and nothing else.")
    ] = False,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Show what a step consists of: its classes by name, its images, how many of them hold each class."""
    run = open_one(recipe, overrides, run_dir, look_only=True).checked()
    from eircli.reports.step import describe_step
    from eircli.reports.tables import stdout, step_table

    if ids:
        run.check_step(step)
        source = run.dataset.train if split == "train" else run.dataset.val
        for position in run.positions(step, split):
            print(source.ids[position])
        return
    facts = describe_step(run, step)
    if as_json:
        print(to_json(facts))
    else:
        stdout().print(step_table(facts))
