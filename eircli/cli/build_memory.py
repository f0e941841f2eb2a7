"""`eir build-memory`."""

from __future__ import annotations

from eircli.cli.options import Again, AsJson, Overrides, Recipe, RunDirectory, Step, open_one, say
from eircli.common.records import to_json

EXAMPLE = "eir build-memory configs/shapes-6-2-eir.yaml --step 1"


def command(
    recipe: Recipe,
    step: Step,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    again: Again = False,
    as_json: AsJson = False,
) -> None:
    """Build what a step keeps of the old classes: a bank of instances or whole images, or prototypes."""
    run = open_one(recipe, overrides, run_dir).checked()
    from eircli.reports.bank import bank_facts
    from eircli.reports.tables import bank_table, stdout
    from eircli.run.main_process import locked_by_main, write_on_main
    from eircli.stages.build_memory import build_memory

    with locked_by_main(run):
        build_memory(run, step, say, again)
        facts = write_on_main(run, lambda: bank_facts(run, step))
    if as_json:
        print(to_json(facts))
        return
    stdout().print(bank_table(facts))
    say(f"memory: {facts.path} ({facts.file_bytes:,} bytes as a file)")
