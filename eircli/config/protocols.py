"""Class schedules: which classes each step learns, which images it sees, which channel a class has."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eircli.common.errors import UserError
from eircli.common.seeds import derive_seed
from eircli.common.types import BACKGROUND, IGNORE, UInt8Array
from eircli.config.manifest import Setting
from eircli.config.orders import class_order

Part = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Schedule:
    """The classes of every step, in the order learned. Class ids start at 1; 0 is background.

    A class's channel is its place in that order, plus one: channels and ids differ in a shuffled schedule.
    """

    steps: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.steps)

    def new(self, step: int) -> tuple[int, ...]:
        """Class ids learned at `step`."""
        return self.steps[step]

    def old(self, step: int) -> tuple[int, ...]:
        """Class ids learned before `step`, in the order learned."""
        return tuple(chain.from_iterable(self.steps[:step]))

    def seen(self, step: int) -> tuple[int, ...]:
        """Class ids learned up to and including `step`; channel c is position c - 1."""
        return self.old(step + 1)

    def learned_at(self, class_id: int) -> int:
        """The step that learns `class_id`."""
        return next(step for step, classes in enumerate(self.steps) if class_id in classes)

    def channel_table(self, classes: Collection[int], step: int, others: int = BACKGROUND) -> UInt8Array:
        """uint8 [256]: class id → channel for `classes` (all seen at `step`), 0 and 255 kept, the rest `others`."""
        table = np.full(256, others, np.uint8)
        table[BACKGROUND], table[IGNORE] = BACKGROUND, IGNORE
        for channel, class_id in enumerate(self.seen(step), start=1):
            if class_id in classes:
                table[class_id] = channel
        return table

    def select(
        self, presence: NDArray[np.bool_], step: int, part: Part, setting: Setting = "overlapped", seed: int = 0
    ) -> NDArray[np.intp]:
        """Positions of the images that `step` trains on, validates on or is tested on (methods/README.md §1).

        Args:
            presence: bool [images, 1 + classes], whether an image holds a pixel of each class id.
            part: "train": images with a new class; in the disjoint setting also without any class that comes later; in the
                partitioned one those assigned to the step. "val": images with a new class. "test": images with any
                class seen so far.
            seed: of the partition.
        """
        new, seen = list(self.new(step)), list(self.seen(step))
        if part == "train" and setting == "partitioned":
            return np.flatnonzero(np.isin(self._dealt(presence, seed), new))
        chosen = presence[:, seen if part == "test" else new].any(axis=1)
        if part == "train" and setting == "disjoint":
            later = np.setdiff1d(np.arange(1, presence.shape[1]), seen)
            chosen &= ~presence[:, later].any(axis=1)
        return np.flatnonzero(chosen)

    def _dealt(self, presence: NDArray[np.bool_], seed: int) -> NDArray[np.intp]:
        """The one class that each image is assigned to, drawn from those it holds; 0 if it holds none of the schedule's.

        After Kwak et al., arXiv:2405.09858: the data set is divided into a part per class, the parts go to the steps.
        """
        classes = np.array(sorted(self.seen(len(self) - 1)))
        generator = np.random.default_rng(derive_seed(seed, "partition"))
        tickets = np.where(presence[:, classes], generator.random((len(presence), len(classes))), -1.0)
        return np.where(tickets.max(axis=1) >= 0, classes[tickets.argmax(axis=1)], BACKGROUND)


def parse_schedule(spec: str | Sequence[Sequence[int]], class_count: int, order: Sequence[int] | str | None = None) -> Schedule:
    """The schedule that `spec` means for classes 1..`class_count`.

    Args:
        spec: "joint"; "A-B": A classes, then B per step until none is left (also "A-B-C…": the last size repeats);
            or the class ids of every step as a list of lists.
        order: the order in which "A-B" takes the class ids, as `protocol.order` has it; ascending if None.

    Example:
        >>> parse_schedule("2-1", class_count=4).steps
        ((1, 2), (3,), (4,))
        >>> parse_schedule("2-2", class_count=4, order=(4, 1, 3, 2)).seen(0)
        (4, 1)

    Raises:
        UserError: an unreadable spec, an id twice or out of range, or fewer classes than the spec needs.
    """
    if not isinstance(spec, str):
        if order is not None:
            raise UserError("protocol.order: only for schedules such as '15-1'; an explicit list of steps has its order")
        return Schedule(_checked(spec, class_count, "protocol.schedule"))
    ids = list(range(1, class_count + 1))
    order = class_order(tuple(order) if order is not None and not isinstance(order, str) else order, class_count)
    if order is not None:
        (ordered,) = _checked([order], class_count, "protocol.order")
        if sorted(ordered) != ids:
            raise UserError(f"protocol.order: must hold each class id 1..{class_count} once, has {len(ordered)} of them")
        ids = list(ordered)
    if spec == "joint":
        return Schedule((tuple(ids),))
    if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)+", spec):
        raise UserError(
            f"protocol.schedule: '{spec}' is not a schedule; write 'joint', 'A-B' such as '15-1', or a list of lists of class ids"
        )
    sizes = [int(part) for part in spec.split("-")]
    if sum(sizes) > class_count:
        raise UserError(f"protocol.schedule: '{spec}' needs {sum(sizes)} classes, the data set has {class_count}")
    while sum(sizes) < class_count:
        sizes.append(min(sizes[-1], class_count - sum(sizes)))
    ends = list(accumulate(sizes))
    return Schedule(tuple(tuple(ids[end - size : end]) for size, end in zip(sizes, ends, strict=True)))


def _checked(steps: Sequence[Sequence[int]], class_count: int, key: str) -> tuple[tuple[int, ...], ...]:
    ids = list(chain.from_iterable(steps))
    if not steps or not all(steps):
        raise UserError(f"{key}: every step needs at least one class")
    if wrong := sorted({i for i in ids if not 1 <= i <= class_count}):
        raise UserError(f"{key}: class id {wrong[0]} is not among 1..{class_count}")
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise UserError(f"{key}: class id {twice} is learned twice")
    return tuple(tuple(step) for step in steps)
