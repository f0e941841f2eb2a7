"""`eir show-step`: what a step consists of."""

from __future__ import annotations

from dataclasses import dataclass

from eircli.config.protocols import Part
from eircli.data.step_view import class_counts
from eircli.run.run import Run


@dataclass(frozen=True)
class PartFacts:
    """The images of a part of a step."""

    images: int
    per_class: dict[str, int]
    """How many of them hold each class seen so far, by its name."""


@dataclass(frozen=True)
class StepFacts:
    """A step's classes by id and name, and its images."""

    step: int
    steps: int
    """How many the schedule has."""
    setting: str
    new: dict[int, str]
    old: dict[int, str]
    parts: dict[Part, PartFacts]


def describe_step(run: Run, step: int) -> StepFacts:
    """What a step consists of.

    Raises:
        UserError: the schedule has no such step, or the data set is not there.
    """
    run.check_step(step)
    parts: dict[Part, PartFacts] = {}
    for part in ("train", "val", "test"):
        index, positions = run.train_index if part == "train" else run.val_index, run.positions(step, part)
        counts = class_counts(index, positions, run.schedule.seen(step))
        parts[part] = PartFacts(len(positions), {run.class_name(c): n for c, n in counts.items()})
    return StepFacts(
        step=step,
        steps=len(run.schedule),
        setting=run.manifest.protocol.setting,
        new={c: run.class_name(c) for c in run.schedule.new(step)},
        old={c: run.class_name(c) for c in run.schedule.old(step)},
        parts=parts,
    )
