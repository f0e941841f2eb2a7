"""What a kind of memory is: how it is made, and what a step gets of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from eircli.common.types import SampleSource, UInt8Array
from eircli.config.manifest import Memory
from eircli.memory.harvest import Candidate
from eircli.memory.select import Score

Facts = Mapping[str, int | str]

Writer = Callable[[Path, Facts], Facts]
"""Writes a memory into a file, with facts of whose it is; returns what the run's record says of it: at least its `kind`, how
many `exemplars` it holds, and their `bytes`. The main process alone calls it."""

Find = Callable[[UInt8Array, Sequence[int], int, Memory], list[Candidate]]
"""The candidates in a label map [H, W]: of these channels, of the image at this position, by these settings."""


class LabelledImages(SampleSource, Protocol):
    """A step's training images, labels holding channels."""

    @property
    def ids(self) -> list[str]: ...

    def load_label(self, index: int) -> UInt8Array: ...


@dataclass(frozen=True)
class Material:
    """What the memory for the step after `step` is made from.

    What takes all images or the model is asked for by a call, so that a kind pays for what it needs alone.
    """

    step: int
    images: LabelledImages
    """The step's training images, as labelled at that step."""
    new: Mapping[int, int]
    """Channel → class id of the classes that the step has learned."""
    old: Sequence[int]
    """The class ids learned before it."""
    before: Path | None
    """The memory that the step had; None if there are no classes before."""
    settings: Memory
    options: Mapping[str, float]
    """What the method's settings add (`MethodSettings.memory_options`)."""
    generator: np.random.Generator
    scan: Callable[[Find], list[Candidate]]
    """Looks for candidates of the new classes in all images; ordered by image."""
    score: Callable[[Sequence[Candidate]], list[Score]]
    """What the step's model makes of candidates ordered by image."""
    features: Callable[[], Iterable[tuple[Tensor, Tensor, Tensor]]]
    """Batches of the step's model over all images: features float [N, C, h, w], labels uint8 [N, h, w] on their grid, and where
    background is both labelled and predicted, bool [N, h, w]."""
    spread: Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]
    """A function's results for items, in order; several processes share the items out."""


class MemoryKind(ABC):
    """A way to remember old classes. Every process calls its methods, on one device."""

    @abstractmethod
    def prepare(self, material: Material) -> Writer:
        """Choose what is kept, by all processes; what is returned writes it.

        Raises:
            UserError: nothing can be kept, or the memory before is damaged.
        """

    @abstractmethod
    def per_class(self, path: Path, class_ids: Sequence[int]) -> dict[int, int]:
        """How many exemplars a memory holds of each of the classes it is of."""

    def samples(self, path: Path, table: UInt8Array) -> SampleSource | None:
        """What it holds as training samples of their own; None if that is nothing to train on.

        Args:
            table: uint8 [256], class id → channel.
        """
        return None

    def for_step(self, path: Path, table: UInt8Array, old: int, device: torch.device, device_bytes: float) -> object | None:
        """What a step's method works with (`Context.memory`), on the training device; None if its samples are all.

        Args:
            table: uint8 [256], class id → channel.
            old: the number of old classes, whose channels are 1..`old`.
            device_bytes: what may be taken of the device's memory; more stays in the host's.
        """
        return None
