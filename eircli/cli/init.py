"""`eir init`."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eircli.cli.exit_codes import USER_ERROR
from eircli.cli.options import Device, on_device, open_one, say
from eircli.common.errors import UserError
from eircli.common.io import write_text

if TYPE_CHECKING:
    from eircli.config.manifest import Manifest
    from eircli.data.check.report import DataReport
    from eircli.data.recognise import Recognised

EXAMPLE = "eir init data/my-images"


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of images and labels.")],
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE", help="The recipe to write; by default NAME.yaml here, NAME being DIR's."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a recipe that is there.")] = False,
    device: Device = None,
) -> None:
    """Recognise a folder's layout, check its images, write a recipe for them and this machine, and estimate its minutes."""
    target = recipe or Path(f"{folder.resolve().name}.yaml")
    if target.exists() and not force:
        raise UserError(f"{target}: is there already; give another name with --recipe, or --force to overwrite it")
    from eircli.data.recognise import recognise

    found = recognise(folder)
    print(f"found: {found.layout}")
    _name_classes(found)
    for note in found.notes:
        print(f"note: {note}")
    paper = _paper(found)
    report = _checked(paper)
    write_text(target, _recipe(target, found, report, paper, device))
    print(f"recipe: {target}")
    if report.of("error"):
        say(f"next: put the errors right, then eir check-data {shlex.quote(str(target))}")
        raise typer.Exit(USER_ERROR)
    _estimate(target, device)
    for line in (f"eir show-step {shlex.quote(str(target))} --step 0", f"eir run-protocol {shlex.quote(str(target))}"):
        say(f"next: {line}")


def _name_classes(found: Recognised) -> None:
    from eircli.data.recognise import make_up_names

    root = Path(str(found.dataset["root"]))
    if found.dataset["kind"] == "folder" and not (root / "classes.txt").exists():
        names = make_up_names(root)
        print(
            f"note: there was no classes.txt: {root / 'classes.txt'} now names {names[0]} to {names[-1]}; give them their names"
        )


def _paper(found: Recognised) -> Manifest:
    """What naming the data set alone means: the paper's setting."""
    from eircli.config.methods import DEFAULT_METHOD
    from eircli.config.recipe import resolve

    tree = {"name": "init", "dataset": found.dataset, "protocol": {"schedule": "joint"}, "method": {"name": DEFAULT_METHOD}}
    return resolve(tree, [], "eir init")


def _checked(paper: Manifest) -> DataReport:
    """What is in the data set, read whole and printed."""
    from eircli.reports.data_check import check_data
    from eircli.reports.data_check_table import data_table, finding_lines
    from eircli.reports.tables import stdout
    from eircli.run.run import Run
    from eircli.run.rundir import RunDir

    with tempfile.TemporaryDirectory() as nowhere:
        report = check_data(Run(RunDir(Path(nowhere), paper, "init"), recorded_classes=False))
    stdout().print(data_table(report))
    for line in finding_lines(report):
        print(line)
    return report


def _recipe(target: Path, found: Recognised, report: DataReport, paper: Manifest, device: str | None) -> str:
    from eircli.config.runtime import Runtime
    from eircli.engine.device import choose_compute
    from eircli.stages.new_recipe import recipe_text

    gpu = choose_compute(Runtime(device=device or "auto")).device.type != "cpu"
    return recipe_text(shlex.quote(str(target)), found.dataset, report, paper, gpu)


def _estimate(target: Path, device: str | None) -> None:
    """Print how long the recipe takes here."""
    from eircli.benchmark.quick import quick_estimate

    run = open_one(target, on_device(device), None, look_only=True).checked()
    found = quick_estimate(run, say)
    steps = ", ".join(f"{60 * step.hours:.2g}" for step in found.steps)
    print(f"on this machine: about {60 * found.hours:.2g} minutes in {found.precision} (step by step: {steps})")
