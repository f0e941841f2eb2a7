"""`eir extend`: a trained run learns new classes from a new folder of images."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from eircli.common.errors import UserError
from eircli.common.io import atomic_write, sha256
from eircli.common.progress import Say
from eircli.config.datasets import Extended
from eircli.config.fingerprint import to_tree
from eircli.config.manifest import Manifest
from eircli.config.recipe import resolve
from eircli.config.tree import Tree
from eircli.memory.kinds import memory_kind
from eircli.run.models import load_trained, save_model
from eircli.run.record import Facts
from eircli.run.results import StepResults
from eircli.run.run import Run
from eircli.run.rundir import RunDir
from eircli.stages.build_memory import material_of
from eircli.stages.evaluate import evaluate
from eircli.stages.train import train


def extended_manifest(
    run: Run, data: Tree, classes: Sequence[str], overrides: Sequence[str] = (), test_before: bool = True
) -> Manifest:
    """The recipe of a run that takes up where `run` stopped, and learns `classes` in one more step.

    Args:
        data: the new images, as a recipe's `dataset` section.
        overrides: `key.path=value`, on top of the run's own settings.
        test_before: whether to test on the test images of the run's own data too.

    Raises:
        UserError: a class that the run knows already, or settings that do not fit.
    """
    tree, step = to_tree(run.manifest), run.directory.last_trained()
    learned = [run.class_name(class_id) for class_id in run.schedule.seen(step)]
    if twice := [name for name in classes if name in learned]:
        raise UserError(f"--classes: {run.directory.path} knows {twice[0]} already; it knows {', '.join(learned)}")
    if len(set(classes)) < len(classes):
        raise UserError("--classes: a name occurs twice")
    names = [*run.classes, *(name for name in classes if name not in run.classes)]
    if run.manifest.method.reserves_channels:
        raise UserError(f"{run.directory.path}: its classifiers were laid out for its own classes alone; it cannot be extended")
    tree["name"] = f"{run.manifest.name}+{'+'.join(classes)}"
    tree["dataset"] = {
        "kind": "extended",
        "known": list(run.classes),
        "new": list(classes),
        "data": dict(data),
        "before": _known_data(run) if test_before else [],
    }
    if not Extended.model_validate(tree["dataset"]).knows_instances and run.manifest.memory.selection == "instance":
        tree["memory"] |= {"selection": "component"}  # of the new images alone: what the run holds was chosen before
    steps = [list(ids) for ids in run.schedule.steps[: step + 1]]
    tree["protocol"] |= {"schedule": [*steps, [names.index(name) + 1 for name in classes]], "order": None}
    return resolve(tree, overrides, "--data")


def _known_data(run: Run) -> list[object]:
    """The data sets that a run's classes were learned from, as far as they are still there, without what is drawn anew."""
    dataset, tree = run.manifest.dataset, to_tree(run.manifest)["dataset"]
    known = [*tree["before"], tree["data"]] if isinstance(dataset, Extended) else [tree]
    return [one for one in known if "root" not in one or Path(one["root"]).is_dir()]


def extend(run: Run, manifest: Manifest, path: Path, say: Say) -> tuple[Run, StepResults]:
    """Learn the new classes of an `extended_manifest` in the run directory `path`; what is done there is not done again.

    `run` is left as it is: its model becomes the checkpoint that the new run begins with, and the new step's memory is built from
    what `run` holds: its last images if they are still there, else the memory it has.

    Returns:
        The new run, and its figures after the new step.

    Raises:
        UserError: a new class is not in the data, or there is nothing to replay while the method wants to.
    """
    new = Run(RunDir(path, manifest, str(path))).checked()
    step = len(new.schedule) - 1
    with new.locked():
        if new.manifest.memory_kind is not None and not new.directory.done(step, "bank"):
            _check_memory(run, new, step)  # before anything is made
        if not new.directory.done(step - 1, "checkpoint"):
            _take_model(run, new, step - 1)
        if len(new.positions(step - 1, "test")):  # what the old model makes of them, to know what is forgotten
            evaluate(new, step - 1, say)
        if new.manifest.memory_kind is not None and not new.directory.done(step, "bank"):
            _take_memory(run, new, step, say)
        train(new, step, say)
        return new, evaluate(new, step, say)


def _take_model(run: Run, new: Run, step: int) -> None:
    """The run's last model as the checkpoint with which the new run begins."""
    trained = load_trained(run, step)
    facts = {"imported": str(run.directory.path), "imported_sha256": sha256(run.directory.checkpoint(step))}
    save_model(new, step, trained.model, trained.method_state, **facts)


def _check_memory(run: Run, new: Run, step: int) -> None:
    """Refuse a run that holds nothing of which the new step's memory can be made."""
    directory, kind = run.directory, new.manifest.memory_kind
    assert kind is not None
    if run.manifest.memory_kind != kind:
        held = "no memory" if run.manifest.memory_kind is None else f"a memory of {run.manifest.memory_kind.name}"
        raise UserError(
            f"{directory.path}: its method keeps {held}, and {new.manifest.method.name} (as set) wants one of {kind.name}; {WITHOUT}"
        )
    if not (directory.done(step, "bank") or directory.done(step - 1, "bank") or _has_data(run)):
        raise UserError(f"{directory.path}: holds no memory of its classes, and its data set is not there; {WITHOUT}")


def _take_memory(run: Run, new: Run, step: int, say: Say) -> None:
    """The memory of the new step, made from what the run holds."""
    directory, path, kind = run.directory, new.directory.bank(step), new.manifest.memory_kind
    assert kind is not None
    facts: Facts
    if directory.done(step, "bank"):
        source, facts = directory.bank(step), directory.steps[step]["bank"].facts
    elif _has_data(run):
        say(f"step {step}: building the memory from the last images of {directory.path}")
        facts = memory_kind(kind.name).prepare(material_of(run, step - 1))(path, {"step": step, "recipe": "extended"})
        new.directory.record(step, "bank", path, **facts)
        return
    else:
        source, facts = directory.bank(step - 1), directory.steps[step - 1]["bank"].facts
        names = ", ".join(run.class_name(class_id) for class_id in run.schedule.new(step - 1))
        say(f"step {step}: the memory of step {step - 1} is all there is; it holds nothing of {names}")
    with source.open("rb") as file, atomic_write(path) as copy:
        shutil.copyfileobj(file, copy)
    new.directory.record(step, "bank", path, **facts, taken_from=str(source))


WITHOUT = "to go on without replay: --set method.fusion=false --set method.standalone_replay=false (EIR), or another method.name"


def _has_data(run: Run) -> bool:
    try:
        run.checked()
    except UserError:
        return False
    return True
