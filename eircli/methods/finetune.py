"""Fine-tuning: the labels of the step as they are. What every method does in a shared base step (methods/README.md §3)."""

from __future__ import annotations

from torch import Tensor

from eircli.common.types import Batch
from eircli.config.section import MethodSettings
from eircli.memory.replay import one_hot
from eircli.methods.base import Context, Method
from eircli.methods.tiled_losses import tiled_losses
from eircli.model.deeplab import DeepLab


class Finetune(Method):
    """Summed binary cross-entropy against the visible labels.

    Losses: `bce`, binary cross-entropy.
    """

    def __init__(self, config: MethodSettings, context: Context) -> None:
        self.positive_weight = config.positive_weight_at(base=context.teacher is None)
        self.compiled = context.compiled

    def prepare(self, batch: Batch) -> Batch:
        return batch.with_(images=batch.images.float(), targets=one_hot(batch.labels))

    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        assert batch.targets is not None
        bce, _ = tiled_losses(
            model(batch.images),
            batch.targets,
            positive_weight=self.positive_weight,
            mean=self.pixel_mean(batch),
            compiled=self.compiled,
        )
        return {"bce": bce}
