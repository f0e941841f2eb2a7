"""The models of a run's steps: the one that a step starts from, the trained one, and the method's state beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from eircli.common.errors import UserError
from eircli.common.seeds import derive_seed
from eircli.config.fingerprint import fingerprint
from eircli.engine.checkpoint import State, load_state, save_state
from eircli.model.deeplab import DeepLab
from eircli.run.main_process import write_on_main
from eircli.run.record import Facts

if TYPE_CHECKING:
    from eircli.methods.base import MethodState
    from eircli.run.run import Run


@dataclass(frozen=True)
class Start:
    """What a step starts from."""

    model: DeepLab
    teacher: DeepLab | None
    """The frozen model of the step before; none in the base step."""
    method_state: MethodState
    """What the method left at the end of the step before (`Method.end`); empty if nothing."""


def start_of(run: Run, step: int) -> Start:
    """The model that a step starts from, its teacher, and its method's state.

    Raises:
        UserError: the step before has no usable checkpoint.
    """
    torch.manual_seed(derive_seed(run.manifest.seed, "model", step))
    if step == 0:
        model = DeepLab(run.manifest.model, [len(run.schedule.new(0))], load_weights=True, reserved=run.reserved(0))
        return Start(model, None, {})
    path = run.directory.verify(step - 1, "checkpoint")
    state = _read(run, step - 1, path)
    model = _model_in(run, step - 1, path, state)
    teacher = model.frozen_copy()
    model.add_classes(len(run.schedule.new(step)))
    return Start(model, teacher, state.get("method_state", {}))


@dataclass(frozen=True)
class Trained:
    """What a step's training has left."""

    model: DeepLab
    method_state: MethodState


def load_trained(run: Run, step: int) -> Trained:
    """The trained model of a step, on the CPU, and the state that its method hands on.

    Raises:
        UserError: its checkpoint is missing, damaged, or of another recipe.
    """
    path = run.directory.verify(step, "checkpoint")
    state = _read(run, step, path)
    return Trained(_model_in(run, step, path, state), state.get("method_state", {}))


def load_model(run: Run, step: int) -> DeepLab:
    """The trained model of a step, on the CPU, in evaluation mode. Needs no data set.

    Raises:
        UserError: its checkpoint is missing, damaged, or of another recipe.
    """
    path = run.directory.verify(step, "checkpoint")
    return _model_in(run, step, path, _read(run, step, path)).eval()


def _read(run: Run, step: int, path: Path) -> State:
    return load_state(path, checkpoint_recipe(run, step), f"delete it and train step {step} again")


def _model_in(run: Run, step: int, path: Path, state: State) -> DeepLab:
    classes_per_step = [len(classes) for classes in run.schedule.steps[: step + 1]]
    model = DeepLab(run.manifest.model, classes_per_step, reserved=run.reserved(step))
    try:
        model.load_state_dict(state["model"])
    except (KeyError, RuntimeError):
        raise UserError(f"{path}: holds another network than its recipe says; delete it and train step {step} again") from None
    return model


def checkpoint_recipe(run: Run, step: int) -> str:
    """The fingerprint of all that a step's checkpoint depends on; runs with the same base step share step 0's."""
    return fingerprint(run.manifest) if step else run.base_fingerprint


def save_model(run: Run, step: int, model: DeepLab, method_state: MethodState, **facts: Any) -> None:
    """Write and record a step's final checkpoint, in the main process.

    Args:
        method_state: of tensors and plain data; not in the file if empty.
        facts: for the record.
    """
    write_on_main(run, lambda: _write_model(run, step, model, method_state, facts))


def _write_model(run: Run, step: int, model: DeepLab, method_state: MethodState, facts: Facts) -> None:
    path = run.directory.checkpoint(step)
    seen = run.schedule.seen(step)
    state: State = {
        "recipe": checkpoint_recipe(run, step),
        "step": step,
        "class_ids": list(seen),
        "classes": [run.class_name(class_id) for class_id in seen],
        "model": model.state_dict(),
    }
    if method_state:
        state["method_state"] = dict(method_state)
    save_state(path, state)
    run.directory.record(step, "checkpoint", path, **facts)
