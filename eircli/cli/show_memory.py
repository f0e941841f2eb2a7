"""`eir show-memory`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eircli.cli.options import Overrides, Recipe, RunDirectory, Step, open_one, say

EXAMPLE = "eir show-memory runs/shapes-6-2-eir-seed0 --step 2"


def command(
    recipe: Recipe,
    step: Step,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The picture; by default in the step's folder.")
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Exemplars to draw of a class.")] = 10,
) -> None:
    """Draw what a step keeps of the old classes: a row per class, each exemplar with its outline, source and size."""
    run = open_one(recipe, overrides, run_dir)
    from eircli.reports.memory_sheet import draw_memory

    path = out or run.directory.file(step, "memory.png")
    say(f"{draw_memory(run, step, most, path)} exemplars: {path}")
