"""What a method is: three hooks around the training loop, and what it is told about its step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sized
from dataclasses import dataclass

from torch import Tensor

from eircli.memory.replay import Instances
from eircli.model.deeplab import DeepLab
from eircli.types import Batch


@dataclass(frozen=True)
class Context:
    """One step, as a method sees it. Channels 1..old are the old classes, the next `new` the new ones."""

    old: int
    new: int
    teacher: DeepLab | None
    """The frozen model after the step before; none in the base step."""
    instances: Instances | None
    """The bank, decoded on the training device; none if the method keeps none."""


class Method(ABC):
    """A continual-learning method. The loop owns the optimizer; a method only says what is to be minimised."""

    def begin(self, model: DeepLab, loader: Sized) -> None:
        """Called once, before the step's first batch."""
        return

    @abstractmethod
    def prepare(self, batch: Batch) -> Batch:
        """Complete a batch on the training device: float images and targets. Called without gradient."""

    @abstractmethod
    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses of a prepared batch; the loop minimises their sum."""
