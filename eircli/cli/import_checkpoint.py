"""`eir import-checkpoint`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eircli.cli.options import Again, AsJson, Overrides, RunDirectory, Step, open_one, say
from eircli.common.errors import UserError
from eircli.common.records import to_json
from eircli.common.torchrun_env import launched

EXAMPLE = "eir import-checkpoint deeplab.pth --into configs/voc-15-5-eir.yaml --step 0"


def command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A state dict of torchvision's DeepLabV3, or of DKD's or EIR's release.")
    ],
    into: Annotated[Path, typer.Option("--into", metavar="RUN", help="The recipe or run directory that takes it.")],
    step: Step,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    again: Again = False,
    as_json: AsJson = False,
) -> None:
    """Import another program's weights as a step's checkpoint."""
    run = open_one(into, overrides, run_dir)
    _ = run.schedule  # refused before anything is made; the images themselves are not needed
    from eircli.stages.import_checkpoint import import_checkpoint

    if launched().processes > 1:
        raise UserError("eir import-checkpoint: there is nothing to share out; run it without torchrun")
    with run.locked_without_data():
        facts = import_checkpoint(run, step, file, again)
    if as_json:
        print(to_json(facts))
        return
    for what, counts in (("taken", facts.tensors), ("left out", facts.left_out)):
        print(f"{what}: {', '.join(f'{count} {part}' for part, count in counts.items()) or 'nothing'}")
    print(f"{facts.naming} → {facts.checkpoint}")
    for note in facts.notes:
        print(f"note: {note}")
    say(f"next: eir evaluate {run.directory.path} --step {step}")
