"""`eir train`."""

from __future__ import annotations

from eircli.cli.options import Again, Device, Overrides, Recipe, RunDirectory, Step, open_one, say

EXAMPLE = "eir train configs/shapes-6-2-eir.yaml --step 0"


def command(
    recipe: Recipe,
    step: Step,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    device: Device = None,
    again: Again = False,
) -> None:
    """Train one step; an interrupted one resumes where it stopped."""
    run = open_one(recipe, overrides, run_dir, device).checked()
    from eircli.run.main_process import locked_by_main
    from eircli.stages.train import train

    with locked_by_main(run):
        train(run, step, say, again)
    say(f"next: eir evaluate {run.directory.path} --step {step}")
