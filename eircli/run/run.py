"""A run: its recipe and directory and, loaded lazily, its schedule, data set and models."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eircli.common.errors import UserError
from eircli.common.torchrun_env import launched
from eircli.common.types import BACKGROUND, IGNORE, DataSet, Split, UInt8Array
from eircli.config.fingerprint import base_fingerprint
from eircli.config.manifest import Manifest
from eircli.config.protocols import Part, Schedule, parse_schedule
from eircli.data.class_index import ClassIndex, read_class_index
from eircli.data.open import class_names, open_dataset
from eircli.data.step_view import StepView
from eircli.run.rundir import RunDir, open_run_dir

if TYPE_CHECKING:
    from eircli.model.deeplab import DeepLab


def open_run(target: Path, overrides: Sequence[str] = (), run_dir: Path | None = None, look_only: bool = False) -> Run:
    """The run that a recipe, a run directory or its manifest.yaml means. Creates nothing, and needs no data set.

    Args:
        look_only: skip the check against an existing run directory.

    Raises:
        UserError: no such recipe, a bad one, or one that contradicts the manifest already in its run directory.
    """
    return Run(open_run_dir(target, overrides, run_dir, look_only), recorded_classes=not look_only)


class Run:
    """Everything about a run that its manifest, record and data set determine.

    Class names and schedule come from the record if present; access to images raises `UserError` where the data set is
    missing.

    Args:
        recorded_classes: take the class names from the record if they are there; else always from the data set.
    """

    def __init__(self, directory: RunDir, recorded_classes: bool = True) -> None:
        self.directory, self._recorded_classes = directory, recorded_classes

    @property
    def manifest(self) -> Manifest:
        """The run's manifest."""
        return self.directory.manifest

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the data set's classes: class id k at position k - 1."""
        recorded = self.directory.classes if self._recorded_classes else None
        return recorded or class_names(self.manifest.dataset)

    @cached_property
    def schedule(self) -> Schedule:
        """Which classes each step learns.

        Raises:
            UserError: it does not fit the classes, or the memory's budget does not fit it.
        """
        manifest = self.manifest
        schedule = parse_schedule(manifest.protocol.schedule, len(self.classes), manifest.protocol.order)
        old, limit = len(schedule.old(len(schedule) - 1)), manifest.memory.limit
        bounded = manifest.memory_kind is not None and manifest.memory_kind.bounded
        if bounded and limit.unit == "exemplars" and limit.amount < old:
            raise UserError(f"memory.budget: {limit.amount} is less than the {old} old classes of the last step")
        return schedule

    @cached_property
    def dataset(self) -> DataSet:
        """The data set, opened."""
        return open_dataset(self.manifest.dataset)

    def checked(self) -> Run:
        """The run itself, after checking that its data set exists and its schedule fits.

        Raises:
            UserError: a data set that is not there, a schedule that does not fit it, or too small a budget.
        """
        _ = self.dataset, self.schedule
        return self

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run's write lock (`RunDir.locked`), with the classes of its data set."""
        with self.directory.locked(self.dataset.classes, self.dataset.label_ids):
            yield

    @contextmanager
    def locked_without_data(self) -> Iterator[None]:
        """The same, where nothing of the data set but its class names is needed; what can be had without it must do."""
        try:
            _ = self.dataset
        except UserError:
            with self.directory.locked(self.classes):
                yield
        else:
            with self.locked():
                yield

    def model(self, step: int) -> DeepLab:
        """The trained model of a step, on the CPU, in evaluation mode (`run.models.load_model`)."""
        from eircli.run.models import load_model

        return load_model(self, step)

    @property
    def base_fingerprint(self) -> str:
        """The hash of all that the base step's checkpoint depends on."""
        return base_fingerprint(self.manifest, self.schedule.new(0), self.reserved(0))

    def reserved(self, step: int) -> int:
        """How many classes of later steps have their classifiers in a step's model (`MethodSettings.reserves_channels`)."""
        return sum(map(len, self.schedule.steps[step + 1 :])) if self.manifest.method.reserves_channels else 0

    @property
    def workers(self) -> int:
        """Worker processes for decoding."""
        if self.manifest.runtime.workers == "auto":
            return min(8, max(1, len(os.sched_getaffinity(0)) // launched().local_processes))
        return self.manifest.runtime.workers

    def check_step(self, step: int) -> None:
        """Refuse a step that the schedule does not have."""
        if not 0 <= step < len(self.schedule):
            raise UserError(f"--step {step}: the schedule has the steps 0 to {len(self.schedule) - 1}")

    def check_memory_step(self, step: int) -> None:
        """Refuse a step that cannot have a memory: the base step, or one more than a step beyond the schedule."""
        if step == 0:
            raise UserError("--step 0: the base step trains without a bank; the first bank is that of step 1")
        if step != len(self.schedule):  # the memory of a step yet to come, for `eir extend`
            self.check_step(step)

    def class_name(self, class_id: int) -> str:
        """A class's name."""
        return "background" if class_id == BACKGROUND else self.classes[class_id - 1]

    def channel_names(self, step: int) -> list[str]:
        """The names of a step's channels, background's first."""
        return [self.class_name(class_id) for class_id in (BACKGROUND, *self.schedule.seen(step))]

    @cached_property
    def train_index(self) -> ClassIndex:
        """bool [images, 1 + classes] of the training split."""
        return self._index(self.dataset.train)

    @cached_property
    def val_index(self) -> ClassIndex:
        """bool [images, 1 + classes] of the validation split."""
        return self._index(self.dataset.val)

    def _index(self, split: Split) -> ClassIndex:
        return read_class_index(split, len(self.dataset.classes), self.workers)

    def positions(self, step: int, part: Part) -> NDArray[np.intp]:
        """Positions, int [images], of the images of a step's part in their split."""
        index = self.train_index if part == "train" else self.val_index
        return self.schedule.select(index, step, part, self.manifest.protocol.setting, self.manifest.seed)

    def _some_positions(self, step: int, part: Part) -> NDArray[np.intp]:
        positions = self.positions(step, part)
        if not len(positions):
            names = ", ".join(self.class_name(c) for c in self.schedule.new(step))
            raise UserError(
                f"step {step}: no {part} image holds any of its classes ({names}); check protocol.schedule and the labels"
            )
        return positions

    def training_view(self, step: int) -> StepView:
        """The images that a step trains on, with the labels of its own classes alone: the background shift."""
        table = self.schedule.channel_table(self.schedule.new(step), step)
        data = self.manifest.data
        return StepView(self.dataset.train, self._some_positions(step, "train"), table, data.short_side, data.cache)

    def test_view(self, step: int) -> StepView:
        """The images that a step is tested on, with the labels of all classes seen so far."""
        others = BACKGROUND if self.manifest.protocol.unseen_at_test == "background" else IGNORE
        table = self.schedule.channel_table(self.schedule.seen(step), step, others)
        return StepView(self.dataset.val, self._some_positions(step, "test"), table, self.manifest.data.short_side)

    def memory_table(self, step: int) -> UInt8Array:
        """uint8 [256]: class id → channel of the classes that the memory of `step` holds."""
        return self.schedule.channel_table(self.schedule.old(step), step)
