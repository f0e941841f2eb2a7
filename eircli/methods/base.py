"""The interface of a method: four hooks around the training loop, and the context of its step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from eircli.common.types import IGNORE, Batch
from eircli.methods.pixel_mean import PixelMean
from eircli.model.deeplab import DeepLab

CalibrationPass = Callable[[], Iterable[Batch]]
"""Returns an iterator over one pass over the step's samples: batches on the training device, the same every time."""

MethodState = Mapping[str, Any]
"""State handed to the next step: tensors and plain data."""


@dataclass(frozen=True)
class Context:
    """The context of a step. Channels 1..old are the old classes, the next `new` channels the new ones."""

    old: int
    new: int
    teacher: DeepLab | None
    """The frozen model after the step before; none in the base step."""
    memory: object | None = None
    """What the method's kind of memory gives a step (`MemoryKind.for_step`), such as decoded instances; none if it keeps none."""
    state: MethodState = field(default_factory=dict)
    """The state that the step before handed on, on the CPU; empty if none."""
    compiled: bool = False
    """Whether to torch.compile the losses (`runtime.compile`)."""
    per_epoch: float = 1.0
    """Iterations of one pass over the step's samples."""


class Method(ABC):
    """A continual-learning method. The loop owns the optimizer; a method only says what is to be minimised."""

    def begin(self, model: DeepLab, calibration: CalibrationPass) -> None:
        """Called before the step's first batch, and again after resuming."""
        return

    @abstractmethod
    def prepare(self, batch: Batch) -> Batch:
        """Complete a batch on the training device, without gradient.

        Returns:
            The batch with float images [N, 3, H, W] in 0..255 and what `losses` needs: targets, teacher logits, region.
        """

    @abstractmethod
    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        """Named losses, [] each, of a prepared batch; the loop minimises their sum.

        A batch may be a part of a larger one (`Batch.part`). Unless the settings say otherwise (`in_parts`), the mean of the
        parts' losses is the loss of the whole: means over pixels are taken by `pixel_mean`.
        """

    def end(self, model: DeepLab, calibration: CalibrationPass) -> MethodState:
        """Called with the trained model after the step's last batch, by all processes.

        Returns:
            The state handed to the next step (`Context.state`), saved with the checkpoint: tensors on any device and plain
            data. A method whose settings say `leaves_state` is asked after the base step too.
        """
        return {}

    def counted_pixels(self, batch: Batch) -> Tensor:
        """bool [N, H, W]: the pixels of a batch, prepared or not, over which the losses take their means."""
        return batch.labels != IGNORE

    def pixel_mean(self, batch: Batch) -> PixelMean:
        """The mean over a batch's counted pixels."""
        return PixelMean(self.counted_pixels(batch), batch.pixel_count)
