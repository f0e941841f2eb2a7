"""The arguments and options that several commands share, and how they lead to runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eircli.common.errors import UserError

if TYPE_CHECKING:
    from eircli.run.run import Run

Recipe = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe (configs/*.yaml), a run of a comparison (FILE:RUN), a run directory, or its manifest.yaml.",
    ),
]
RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe or comparison (configs/*.yaml).")]
Recipes = Annotated[
    list[Path], typer.Argument(metavar="RECIPE...", help="Recipes, comparisons, run directories, or their manifest.yaml.")
]
Step = Annotated[int, typer.Option("--step", "-t", help="The step, from 0 (the base step).")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a key of the recipe; repeatable.")
]
RunDirectory = Annotated[Path | None, typer.Option("--run-dir", help="The run directory; by default runs/NAME-seedSEED.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, or cuda:N; the same as --set runtime.device=…")]
Seeds = Annotated[str | None, typer.Option("--seeds", metavar="A,B,…", help="Run each recipe once for every one of these seeds.")]
Against = Annotated[str | None, typer.Option("--against", help="The reference run of the differences; by default the best.")]
Layout = Annotated[Literal["table", "markdown", "csv", "latex"], typer.Option("--format", help="How to print the comparison.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]
Again = Annotated[bool, typer.Option("--again", help="Redo it even if it is finished.")]


def open_one(
    recipe: Path,
    overrides: Sequence[str] | None,
    run_dir: Path | None,
    device: str | None = None,
    look_only: bool = False,
) -> Run:
    """The run of a target; its data set is not looked at yet (`Run.checked` does)."""
    from eircli.run.run import open_run

    return open_run(recipe, [*(overrides or []), *on_device(device)], run_dir, look_only)


def on_device(device: str | None) -> list[str]:
    """The override that --device is."""
    return [f"runtime.device={device}"] if device else []


def open_all(
    recipes: Sequence[Path],
    overrides: Sequence[str] | None,
    seeds: str | None,
    run_dir: Path | None = None,
    device: str | None = None,
) -> list[Run]:
    """The runs of some recipes and comparisons, for every seed; all of them opened before anything is done."""
    from eircli.config.recipe import recipes_in

    targets = [target for recipe in recipes for target in recipes_in(recipe)]
    each = [[*(overrides or []), *seed] for seed in _seed_overrides(seeds)]
    if run_dir is not None and len(targets) * len(each) > 1:
        raise UserError(
            "--run-dir: names one run; give one recipe and seed, or leave it out and each run gets its own under runs/"
        )
    runs = [open_one(target, changes, run_dir, device) for target in targets for changes in each]
    check_distinct(runs)
    return runs


def check_distinct(runs: Sequence[Run]) -> None:
    """Refuse runs that would share a directory, before any of them begins."""
    paths = [run.directory.path.resolve() for run in runs]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise UserError(
            f"two of the runs would share the directory runs/{twice.name}; give each setting once, or recipes other names"
        )


def _seed_overrides(seeds: str | None) -> list[list[str]]:
    if seeds is None:
        return [[]]
    if not re.fullmatch(r"\d+(,\d+)*", seeds) or len(set(seeds.split(","))) < len(seeds.split(",")):
        raise UserError(f"--seeds {seeds}: write different numbers with commas between them, such as --seeds 0,1,2")
    return [[f"seed={seed}"] for seed in seeds.split(",")]


def say(line: str) -> None:
    """Print a line about what goes on, on stderr."""
    print(line, file=sys.stderr, flush=True)
