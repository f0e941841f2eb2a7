"""The options that several commands share, and how they lead to a run."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eircli.common.errors import UserError

if TYPE_CHECKING:
    from eircli.run.run import Workbench

Recipe = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe (configs/*.yaml), a run directory, or its manifest.yaml.")
]
RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe (configs/*.yaml).")]
Recipes = Annotated[list[Path], typer.Argument(metavar="RECIPE...", help="Recipes, run directories, or their manifest.yaml.")]
Step = Annotated[int, typer.Option("--step", "-t", help="The step, from 0 (the base step).")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a key of the recipe; repeatable.")
]
RunDirectory = Annotated[Path | None, typer.Option("--run-dir", help="The run directory; by default runs/NAME-seedSEED.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, or cuda:N; the same as --set runtime.device=…")]
Seeds = Annotated[str | None, typer.Option("--seeds", metavar="A,B,…", help="Run each recipe once for every one of these seeds.")]
Layout = Annotated[Literal["table", "markdown", "csv", "latex"], typer.Option("--format", help="How to print the comparison.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]
Again = Annotated[bool, typer.Option("--again", help="Do it anew although it is done.")]


def open_bench(
    recipe: Path, overrides: list[str] | None, run_dir: Path | None, device: str | None = None, look_only: bool = False
) -> Workbench:
    from eircli.run.run import Workbench
    from eircli.run.rundir import open_run

    return Workbench(open_run(recipe, [*(overrides or []), *on_device(device)], run_dir, look_only))


def on_device(device: str | None) -> list[str]:
    return [f"runtime.device={device}"] if device else []


def open_all(
    recipes: list[Path], overrides: list[str] | None, seeds: str | None, run_dir: Path | None = None, device: str | None = None
) -> list[Workbench]:
    """The runs of some recipes, for every seed; all of them opened, and so checked, before anything is done."""
    each = [[*(overrides or []), *seed] for seed in _seed_overrides(seeds)]
    if run_dir is not None and len(recipes) * len(each) > 1:
        raise UserError(
            "--run-dir: names one run; give one recipe and seed, or leave it out and each run gets its own under runs/"
        )
    benches = [open_bench(recipe, changes, run_dir, device) for recipe in recipes for changes in each]
    check_distinct(benches)
    return benches


def check_distinct(benches: list[Workbench]) -> None:
    """Refuse runs that would share a directory, before any of them begins."""
    paths = [bench.run.path.resolve() for bench in benches]
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
    print(line, file=sys.stderr, flush=True)
