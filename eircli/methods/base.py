"""What a method is: three hooks around the training loop, and what it is told about its step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from eircli.common.types import IGNORE, Batch
from eircli.memory.prototypes import Prototypes
from eircli.memory.replay import Instances
from eircli.model.deeplab import DeepLab

Survey = Callable[[], Iterable[Batch]]
"""Starts a pass over the step's samples: batches on the training device, the same ones every time."""


@dataclass(frozen=True)
class Context:
    """One step, as a method sees it. Channels 1..old are the old classes, the next `new` the new ones."""

    old: int
    new: int
    teacher: DeepLab | None
    """The frozen model after the step before; none in the base step."""
    instances: Instances | None = None
    """The bank of instances, decoded, on the training device if it is not too large; none if the method keeps none."""
    prototypes: Prototypes | None = None
    """The old classes' prototypes on the training device, ordered by channel; none if the method keeps none."""
    compiled: bool = False
    """Whether losses that can be compiled are (`runtime.compile`)."""
    per_epoch: float = 1.0
    """Iterations of one pass over the step's samples."""


class Method(ABC):
    """A continual-learning method. The loop owns the optimizer; a method only says what is to be minimised."""

    def begin(self, model: DeepLab, survey: Survey) -> None:
        """Called before the step's first batch, and again when a run goes on."""
        return

    def counted(self, batch: Batch) -> Tensor:
        """bool [N, H, W]: the pixels over which the losses of a batch, once prepared, take their means."""
        return batch.labels != IGNORE

    @abstractmethod
    def prepare(self, batch: Batch) -> Batch:
        """Complete a batch on the training device: float images and targets. Called without gradient."""

    @abstractmethod
    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses of a prepared batch; the loop minimises their sum.

        A batch may be a part of a larger one (`Batch.part`). Unless the settings say otherwise (`in_parts`), the mean of the
        parts' losses is the loss of the whole: means over pixels divide by `Batch.counted`.
        """
