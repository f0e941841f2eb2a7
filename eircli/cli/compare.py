"""`eir compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from eircli.cli.options import Against, AsJson, Layout, Overrides, Recipes, Seeds, open_all
from eircli.common.records import to_json

EXAMPLE = "eir compare runs/shapes-6-2-*; or: eir compare configs/shapes-6-2.yaml --seeds 0,1,2"


def command(
    recipes: Recipes,
    overrides: Overrides = None,
    seeds: Seeds = None,
    against: Against = None,
    all_steps: Annotated[bool, typer.Option("--all-steps", help="A table for every step, not for the last alone.")] = False,
    layout: Layout = "table",
    as_json: AsJson = False,
) -> None:
    """Compare finished runs: mean and deviation over seeds, best first, and paired differences where seeds match."""
    runs = open_all(recipes, overrides, seeds)
    from eircli.reports.comparison import compare
    from eircli.reports.comparison_tables import render

    found = compare(runs, against)
    print(to_json(found) if as_json else render(found, layout, all_steps))
