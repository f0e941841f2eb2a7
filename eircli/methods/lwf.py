"""Learning without forgetting (Li & Hoiem, ECCV 2016), pixel by pixel as MiB's comparison has it."""

from __future__ import annotations

from torch import Tensor

from eircli.common.types import Batch
from eircli.config import methods as method_settings
from eircli.methods.base import Context, Method
from eircli.methods.losses import cross_entropy, plain_distillation
from eircli.model.deeplab import DeepLab, upsample


class Lwf(Method):
    """Softmax cross-entropy, and distillation of the teacher's softmax over its own channels.

    Losses: `ce`, cross-entropy; `kd`, distillation.
    """

    def __init__(self, config: method_settings.LwfSettings, context: Context) -> None:
        self.config, self.context = config, context

    def prepare(self, batch: Batch) -> Batch:
        images, teacher = batch.images.float(), self.context.teacher
        logits = None if teacher is None else teacher(images)
        return batch.with_(images=images, teacher_logits=logits)

    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        return self.losses_of_logits(upsample(model(batch.images), batch.labels.shape[1:]), batch)

    def losses_of_logits(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The losses of logits [N, K, H, W] at the images' size."""
        mean = self.pixel_mean(batch)
        losses = {"ce": mean(cross_entropy(logits, batch.labels))}
        if batch.teacher_logits is not None:
            theirs = upsample(batch.teacher_logits, batch.labels.shape[1:])
            losses["kd"] = self.config.distill_weight * mean(plain_distillation(logits, theirs))
        return losses
