"""The models of a run's steps: the one a step ends with, and the one it starts from."""

from __future__ import annotations

from typing import Any

import torch

from eircli.common.errors import UserError
from eircli.common.seeds import derive_seed
from eircli.config.fingerprint import fingerprint
from eircli.engine.checkpoint import load_state, save_state
from eircli.model.deeplab import DeepLab
from eircli.run.main_process import by_main
from eircli.run.run import Workbench


def start_model(bench: Workbench, step: int) -> tuple[DeepLab, DeepLab | None]:
    """The model that a step starts from, and its teacher (none in the base step)."""
    torch.manual_seed(derive_seed(bench.manifest.seed, "model", step))
    if step == 0:
        return DeepLab(bench.manifest.model, [len(bench.schedule.new(0))], load_weights=True), None
    model = load_model(bench, step - 1)
    teacher = model.frozen_copy()
    model.add_classes(len(bench.schedule.new(step)))
    return model, teacher


def load_model(bench: Workbench, step: int) -> DeepLab:
    """The trained model of a step, on the CPU.

    Raises:
        UserError: its checkpoint is missing, damaged, or of another recipe.
    """
    path = bench.run.verify(step, "checkpoint")
    state = load_state(path, checkpoint_recipe(bench, step), f"delete it and train step {step} again")
    model = DeepLab(bench.manifest.model, [len(classes) for classes in bench.schedule.steps[: step + 1]])
    try:
        model.load_state_dict(state["model"])
    except (KeyError, RuntimeError):
        raise UserError(f"{path}: holds another network than its recipe says; delete it and train step {step} again") from None
    return model


def checkpoint_recipe(bench: Workbench, step: int) -> str:
    """The fingerprint of all that a step's checkpoint depends on; runs with the same base step share step 0's."""
    return fingerprint(bench.manifest) if step else bench.base_fingerprint


def save_model(bench: Workbench, step: int, model: DeepLab, **facts: Any) -> None:
    """Write and record a step's final checkpoint."""
    by_main(bench, lambda: _write_model(bench, step, model, facts))


def _write_model(bench: Workbench, step: int, model: DeepLab, facts: dict[str, Any]) -> None:
    path = bench.run.checkpoint(step)
    seen = bench.schedule.seen(step)
    classes = [bench.class_name(class_id) for class_id in seen]
    save_state(
        path,
        {
            "recipe": checkpoint_recipe(bench, step),
            "step": step,
            "class_ids": list(seen),
            "classes": classes,
            "model": model.state_dict(),
        },
    )
    bench.run.record(step, "checkpoint", path, **facts)
