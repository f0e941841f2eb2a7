"""`eir status`."""

from __future__ import annotations

from eircli.cli.options import AsJson, Overrides, Recipe, RunDirectory, open_one
from eircli.common.records import to_json

EXAMPLE = "eir status runs/shapes-6-2-eir-seed0"


def command(recipe: Recipe, overrides: Overrides = None, run_dir: RunDirectory = None, as_json: AsJson = False) -> None:
    """Show what of a run is done, and what is next."""
    run = open_one(recipe, overrides, run_dir)
    from eircli.reports.status import status
    from eircli.reports.tables import status_table, stdout

    facts = status(run)
    if as_json:
        print(to_json(facts))
        return
    stdout().print(status_table(facts))
    print(f"next: {facts.next or 'nothing, the run is complete'}")
