"""The commands on several runs: run them, compare them, sweep over settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eircli.cli.options import (
    AsJson,
    Device,
    Layout,
    Overrides,
    RecipeFile,
    Recipes,
    RunDirectory,
    Seeds,
    check_distinct,
    on_device,
    open_all,
    say,
)
from eircli.common.torchrun_env import launched

if TYPE_CHECKING:
    from eircli.run.run import Workbench


def run_protocol_command(
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
    benches = open_all(recipes, overrides, seeds, run_dir, device)
    from eircli.reports import tables as report

    runs: list[dict[str, Any]] = []
    for bench in benches:
        steps = _finish(bench)
        manifest = bench.manifest
        runs.append(
            {
                "name": manifest.name,
                "run_dir": str(bench.run.path),
                "method": manifest.method.name,
                "seed": manifest.seed,
                "steps": steps,
            }
        )
    if pictures:
        from eircli.reports.pictures import draw_side_by_side
        from eircli.run.main_process import at_work, by_main

        with at_work(benches[-1]):
            say(f"picture: {by_main(benches[-1], lambda: draw_side_by_side(benches, pictures))}")
    if as_json:
        print(json.dumps({"runs": runs}))
        return
    if seeds:
        _print_comparison(benches)
    else:
        report.stdout().print(report.protocol_table(runs))
    for run in runs:
        print(f"{run['name']}: {run['run_dir']}")
    last = runs[-1]
    print(f"next: eir evaluate {last['run_dir']} --step {len(last['steps']) - 1} --pictures 4")


def compare_command(
    recipes: Recipes,
    overrides: Overrides = None,
    seeds: Seeds = None,
    against: Annotated[
        str | None, typer.Option("--against", help="The run to take differences from; by default the best.")
    ] = None,
    all_steps: Annotated[bool, typer.Option("--all-steps", help="A table for every step, not for the last alone.")] = False,
    layout: Layout = "table",
    as_json: AsJson = False,
) -> None:
    """Compare finished runs: mean and deviation over seeds, best first, and paired differences where seeds match."""
    benches = open_all(recipes, overrides, seeds)
    _print_comparison(benches, against, all_steps, layout, as_json)


def sweep_command(
    recipe: RecipeFile,
    grid: Annotated[
        list[str],
        typer.Option("--grid", metavar="KEY.PATH=A,B,…", help="A key and its values; repeatable, for every combination."),
    ],
    overrides: Overrides = None,
    device: Device = None,
    seeds: Seeds = None,
    against: Annotated[
        str | None, typer.Option("--against", help="The run to take differences from; by default the best.")
    ] = None,
    layout: Layout = "table",
    as_json: AsJson = False,
) -> None:
    """Run a recipe under every combination of some keys' values, and compare. What is done is not done again."""
    from eircli.config.sweep import variants

    found = variants(recipe, grid, [*(overrides or []), *on_device(device)])
    benches = [bench for changes in found for bench in open_all([recipe], changes, seeds)]
    check_distinct(benches)
    for number, bench in enumerate(benches, start=1):
        say(f"{number} of {len(benches)}: {bench.run.path}")
        _finish(bench)
    _print_comparison(benches, against, layout=layout, as_json=as_json)


def _finish(bench: Workbench) -> list[dict[str, Any]]:
    """The results of every step of a run, which is first run to its end."""
    from eircli.reports.show import recorded_results

    # Several processes must agree on what is done, which `run_protocol` sees to.
    steps = recorded_results(bench) if launched().processes == 1 else None
    if steps is None:
        from eircli.run.main_process import at_work
        from eircli.stages.run_protocol import run_protocol

        with at_work(bench):
            steps = run_protocol(bench, say)
    return steps


def _print_comparison(
    benches: list[Workbench], against: str | None = None, all_steps: bool = False, layout: str = "table", as_json: bool = False
) -> None:
    from eircli.reports import comparison_tables as comparison_report
    from eircli.reports.comparison import compare

    facts = compare(benches, against)
    print(json.dumps(facts) if as_json else comparison_report.render(facts, layout, all_steps))
