"""`eir import-checkpoint`: another program's weights as a step's checkpoint."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from eircli.errors import UserError
from eircli.model.deeplab import DeepLab
from eircli.model.naming import load_checked, read_state, rename, split_classes
from eircli.rundir import sha256
from eircli.stages.models import save_model
from eircli.workbench import Workbench


def import_checkpoint(bench: Workbench, step: int, file: Path, again: bool = False) -> dict[str, Any]:
    """Make a file's weights the checkpoint of a step, and say what of it was taken.

    Raises:
        UserError: the step has a checkpoint already (unless `again`), or the file does not fit.
    """
    bench.check_step(step)
    if not again and bench.run.done(step, "checkpoint"):
        raise UserError(f"{bench.run.checkpoint(step)}: step {step} has a checkpoint already; --again takes its place")
    steps = bench.schedule.steps[: step + 1]
    renamed = rename(file, read_state(file))
    state = split_classes(file, renamed.state, steps) if "all_classes.weight" in renamed.state else renamed.state
    model = DeepLab(bench.manifest.model, [len(classes) for classes in steps])
    load_checked(file, model, state)
    save_model(bench, step, model, imported=file.name, imported_sha256=sha256(file))
    return {
        "step": step,
        "file": str(file),
        "naming": renamed.naming,
        "tensors": dict(Counter(name.split(".")[0] for name in state)),
        "left_out": dict(Counter(name.split(".")[0] for name in renamed.left_out)),
        "checkpoint": str(bench.run.checkpoint(step)),
    }
