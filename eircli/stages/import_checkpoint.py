"""`eir import-checkpoint`: another program's weights as a step's checkpoint."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from eircli.common.errors import UserError
from eircli.common.io import sha256
from eircli.model.deeplab import DeepLab
from eircli.model.safe_loading import read_tensors
from eircli.model.state_dict_adapters import load_checked, rename, split_classes
from eircli.run.models import save_model
from eircli.run.run import Workbench


def import_checkpoint(bench: Workbench, step: int, file: Path, again: bool = False) -> dict[str, Any]:
    """Make a file's weights the checkpoint of a step, and say what of it was taken.

    Raises:
        UserError: the step has a checkpoint already (unless `again`), or the file does not fit.
    """
    bench.check_step(step)
    if not again and bench.run.done(step, "checkpoint"):
        raise UserError(f"{bench.run.checkpoint(step)}: step {step} has a checkpoint already; --again takes its place")
    steps = bench.schedule.steps[: step + 1]
    loaded = read_tensors(file)
    if loaded.class_ids is not None and loaded.class_ids != list(bench.schedule.seen(step)):
        raise UserError(f"{file}: has learned the classes {loaded.class_ids}, step {step} here {list(bench.schedule.seen(step))}")
    renamed = rename(file, loaded.tensors)
    state = split_classes(file, renamed.state, steps) if "all_classes.weight" in renamed.state else renamed.state
    model = DeepLab(bench.manifest.model, [len(classes) for classes in steps])
    load_checked(file, model, state)
    save_model(bench, step, model, imported=file.name, imported_sha256=sha256(file))
    bench.run.resume_file(step).unlink(missing_ok=True)
    return {
        "step": step,
        "file": str(file),
        "naming": renamed.naming,
        "tensors": dict(Counter(name.split(".")[0] for name in state)),
        "left_out": dict(Counter(name.split(".")[0] for name in renamed.left_out)),
        "checkpoint": str(bench.run.checkpoint(step)),
        "notes": _notes(bench, step, renamed.naming),
    }


def _notes(bench: Workbench, step: int, naming: str) -> list[str]:
    """What a user should know that no shape of a tensor shows."""
    if naming != "torchvision":
        return []
    notes = [
        f"torchvision trains at stride 8 with ASPP rates 12, 24, 36; here it is stride 16 with {list(bench.manifest.model.aspp_rates)}"
    ]
    if bench.manifest.activation(step) == "sigmoid":
        notes.append(f"torchvision trains with soft-max; the predictions of step {step} are read by sigmoid")
    return notes
