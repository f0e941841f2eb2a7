"""What EIR and image replay have in common: binary cross-entropy against targets, and distillation in a region."""

from __future__ import annotations

from torch import Tensor

from eircli.common.types import IGNORE, Batch
from eircli.config.methods import Distill, EirSettings, ImageReplaySettings
from eircli.memory.replay import pseudo_labels
from eircli.methods.base import Context, Method
from eircli.methods.tiled_losses import tiled_losses
from eircli.model.deeplab import DeepLab
from eircli.model.tiles import best_channels


class DistilledReplay(Method):
    """L = L_bce + weight · L_rskd (methods/README.md §5.6); subclasses prepare images and targets.

    Losses: `bce`, binary cross-entropy; `rskd`, region-specific distillation, weighted, if it is on.
    """

    def __init__(self, config: EirSettings | ImageReplaySettings, context: Context) -> None:
        assert context.teacher is not None
        self.context, self.teacher = context, context.teacher
        self.distill, self.threshold, self.positive_weight = config.distill, config.threshold, config.positive_weight

    def add_pseudo_labels(self, labels: Tensor, teacher_logits: Tensor) -> Tensor:
        """Labels uint8 [N, H, W] → the same with pseudo-labels, from the teacher's logits [N, 1 + old, h, w]."""
        return pseudo_labels(labels, *best_channels(teacher_logits, labels.shape[1:]), self.threshold)

    def with_distillation(self, batch: Batch, teacher_logits: Tensor | None = None) -> Batch:
        """The batch with teacher logits and region, if distillation is on.

        Args:
            teacher_logits: [N, 1 + old, h, w] on the batch's images, where they are known.
        """
        if not self.distill.is_on:
            return batch
        logits = self.teacher(batch.images) if teacher_logits is None else teacher_logits
        return batch.with_(teacher_logits=logits, region=distillation_mask(batch.labels, self.context.old, self.distill))

    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        assert batch.targets is not None
        bce, rskd = tiled_losses(
            model(batch.images),
            batch.targets,
            batch.teacher_logits,
            batch.region,
            self.positive_weight,
            self.pixel_mean(batch),
            self.context.compiled,
        )
        return {"bce": bce} if batch.teacher_logits is None else {"bce": bce, "rskd": self.distill.weight * rskd}


def distillation_mask(labels: Tensor, old: int, distill: Distill) -> Tensor:
    """The pixels to distil, bool [N, H, W], by their labels uint8 [N, H, W] before fusion; ignored pixels never."""
    valid = labels != IGNORE
    new = (labels > old) & valid
    return {"outside-new": ~new & valid, "inside-new": new, "all": valid, "none": valid & ~valid}[distill.region]
