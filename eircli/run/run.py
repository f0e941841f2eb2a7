"""A run laid out for work: its data set, schedule and views of each step."""

from __future__ import annotations

import os
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from eircli.common.errors import UserError
from eircli.common.torchrun_env import launched
from eircli.common.types import BACKGROUND, IGNORE, Split, UInt8Array
from eircli.config.fingerprint import base_fingerprint
from eircli.config.manifest import Manifest
from eircli.config.protocols import Part, parse_schedule
from eircli.data.class_index import ClassIndex, read_class_index
from eircli.data.open import open_dataset
from eircli.data.step_view import StepView
from eircli.run.rundir import RunDir


class Workbench:
    """Everything about a run that its manifest and data set determine; nothing is written.

    Raises:
        UserError: a data set that is not there, a schedule that does not fit it, or too small a budget.
    """

    def __init__(self, run: RunDir) -> None:
        self.run = run
        manifest = self.manifest
        self.dataset = open_dataset(manifest.dataset)
        self.schedule = parse_schedule(manifest.protocol.schedule, len(self.dataset.classes), manifest.protocol.order)
        old = len(self.schedule.old(len(self.schedule) - 1))
        limit = manifest.memory.limit
        if manifest.keeps in ("instances", "images") and limit.unit == "exemplars" and limit.amount < old:
            raise UserError(f"memory.budget: {limit.amount} is less than the {old} old classes of the last step")

    @property
    def manifest(self) -> Manifest:
        """The run's manifest."""
        return self.run.manifest

    @property
    def base_fingerprint(self) -> str:
        """The hash of all that the base step's checkpoint depends on."""
        return base_fingerprint(self.manifest, self.schedule.new(0))

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

    def class_name(self, class_id: int) -> str:
        """A class's name."""
        return "background" if class_id == BACKGROUND else self.dataset.classes[class_id - 1]

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
        """Positions, in their split, of the images of a step's part."""
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
        """uint8 [256]: class id → channel of the classes that the bank of `step` holds."""
        return self.schedule.channel_table(self.schedule.old(step), step)
