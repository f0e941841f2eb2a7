"""`eir import-checkpoint`: another program's weights as a step's checkpoint."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from eircli.common.errors import UserError
from eircli.common.io import sha256
from eircli.model.deeplab import DeepLab
from eircli.model.safe_loading import load_tensors
from eircli.model.state_dict_adapters import adapt, load_checked, split_classes
from eircli.run.models import save_model
from eircli.run.run import Run


@dataclass(frozen=True)
class ImportFacts:
    """What was imported from a file."""

    step: int
    file: str
    naming: str
    """Its naming scheme."""
    tensors: dict[str, int]
    """How many tensors were taken of each part of the network."""
    left_out: dict[str, int]
    checkpoint: str
    notes: list[str]
    """Differences between the networks that do not show in the shapes of tensors."""


def import_checkpoint(run: Run, step: int, file: Path, again: bool = False) -> ImportFacts:
    """Import a file's weights as the checkpoint of a step.

    Raises:
        UserError: the step has a checkpoint already (unless `again`), or the file does not fit.
    """
    run.check_step(step)
    if not again and run.directory.done(step, "checkpoint"):
        raise UserError(f"{run.directory.checkpoint(step)}: step {step} has a checkpoint already; --again takes its place")
    steps = run.schedule.steps[: step + 1]
    loaded = load_tensors(file)
    if loaded.class_ids is not None and loaded.class_ids != list(run.schedule.seen(step)):
        raise UserError(f"{file}: has learned the classes {loaded.class_ids}, step {step} here {list(run.schedule.seen(step))}")
    model = DeepLab(run.manifest.model, [len(classes) for classes in steps], reserved=run.reserved(step))
    adapted = adapt(file, loaded.tensors, model)
    state = split_classes(file, adapted.state, steps) if "all_classes.weight" in adapted.state else adapted.state
    load_checked(file, model, state)
    save_model(run, step, model, {}, imported=file.name, imported_sha256=sha256(file))
    run.directory.resume_file(step).unlink(missing_ok=True)
    return ImportFacts(
        step=step,
        file=str(file),
        naming=adapted.naming,
        tensors=dict(Counter(name.split(".")[0] for name in state)),
        left_out=dict(Counter(name.split(".")[0] for name in adapted.left_out)),
        checkpoint=str(run.directory.checkpoint(step)),
        notes=_notes(run, step, adapted.naming),
    )


def _notes(run: Run, step: int, naming: str) -> list[str]:
    """Differences between the networks that do not show in the shapes of tensors."""
    if naming != "torchvision":
        return []
    notes = [
        f"torchvision trains at stride 8 with ASPP rates 12, 24, 36; here it is stride 16 with {list(run.manifest.model.aspp_rates)}"
    ]
    if run.manifest.activation(step) == "sigmoid":
        notes.append(f"torchvision trains with soft-max; the predictions of step {step} are read by sigmoid")
    return notes
