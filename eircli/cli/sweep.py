"""`eir sweep`."""

from __future__ import annotations

from typing import Annotated

import typer

from eircli.cli.finish import finish
from eircli.cli.options import (
    Against,
    AsJson,
    Device,
    Layout,
    Overrides,
    RecipeFile,
    Seeds,
    check_distinct,
    on_device,
    open_all,
)
from eircli.common.records import to_json

EXAMPLE = "eir sweep configs/shapes-6-2-eir.yaml --grid method.threshold=0.5,0.7,0.9 --seeds 0,1,2"


def command(
    recipe: RecipeFile,
    grid: Annotated[
        list[str],
        typer.Option("--grid", metavar="KEY.PATH=A,B,…", help="A key and its values; repeatable, for every combination."),
    ],
    overrides: Overrides = None,
    device: Device = None,
    seeds: Seeds = None,
    against: Against = None,
    layout: Layout = "table",
    as_json: AsJson = False,
) -> None:
    """Run a recipe under every combination of some keys' values, and compare. What is done is not done again."""
    from eircli.config.recipe import recipes_in
    from eircli.config.sweep import variants
    from eircli.reports.comparison import compare
    from eircli.reports.comparison_tables import render

    changes = [*(overrides or []), *on_device(device)]
    found = [(one, variant) for one in recipes_in(recipe) for variant in variants(one, grid, changes)]
    runs = [run for one, variant in found for run in open_all([one], variant, seeds)]
    check_distinct(runs)
    finish(runs, announce=True)
    compared = compare(runs, against)
    print(to_json(compared) if as_json else render(compared, layout, all_steps=False))
