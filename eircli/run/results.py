"""The figures of an evaluated step, in percent (methods/README.md §7): old, new and all classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from eircli.common.errors import UserError
from eircli.common.records import from_json
from eircli.run.record import Artifact

if TYPE_CHECKING:
    from eircli.run.rundir import RunDir


@dataclass(frozen=True)
class ClassResult:
    """One class's figures under a step's model."""

    id: int
    name: str
    step: int
    """The step that learned it; 0 for background."""
    iou: float | None
    pixels: int
    """Ground-truth pixels."""
    taken_by_background: float | None
    """Share of its true pixels predicted as background; None for background, or without such pixels."""
    forgetting: float | None
    """The best IoU of the earlier steps less this one; None unless all of them are evaluated."""


@dataclass(frozen=True)
class StepResults:
    """The figures of an evaluated step: what its results.json holds."""

    step: int
    old: float | None
    """Mean IoU over background and the base step's classes; `old_taken_by_background` is over the classes of all earlier
    steps."""
    new: float | None
    """Over the classes learned later; None in the base step."""
    all: float | None
    harmonic: float | None
    """The harmonic mean of old and new."""
    average_all: float | None
    """The mean of `all` over the steps so far; None unless all of them are evaluated."""
    old_taken_by_background: float | None
    """Share of the true pixels of the classes of all earlier steps that are predicted as background; `old` is over background and
    the base step's classes."""
    size: str
    """At which size it was measured, in words."""
    absent_class: str
    """What a class without a pixel counts as (`evaluate.absent_class`)."""
    classes: tuple[ClassResult, ...]
    """By channel."""
    images: int


class StepMeans(NamedTuple):
    """Mean IoUs. `new` and `harmonic` are None in the base step."""

    old: float | None
    """Over background and the base step's classes."""
    new: float | None
    """Over the classes learned later."""
    all: float | None
    harmonic: float | None


def summarize(ious: Sequence[float | None], base_count: int) -> StepMeans:
    """The standard mIoU figures, of the IoUs of background, `base_count` base classes, and later ones."""
    old, new = mean(ious[: 1 + base_count]), mean(ious[1 + base_count :])
    harmonic = None if old is None or new is None else 2 * old * new / (old + new) if old + new else 0.0
    return StepMeans(old, new, mean(ious), harmonic)


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None; None if there are none."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def results_artifact(full_size: bool) -> Artifact:
    """The artifact that results are: of the paper's crops, or of whole images."""
    return "results_full_size" if full_size else "results"


def read_results(directory: RunDir, step: int, full_size: bool = False) -> StepResults:
    """The recorded results of a step.

    Raises:
        UserError: not recorded, missing, damaged, or of another version of eir.
    """
    path = directory.verify(step, results_artifact(full_size))
    try:
        return from_json(StepResults, path.read_text(encoding="utf-8"))
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: holds no results that this eir reads ({reason}); run eir evaluate with --again") from None
