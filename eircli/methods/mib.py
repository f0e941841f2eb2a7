"""MiB: modeling the background (Cermelli et al., CVPR 2020, arXiv:2002.00718)."""

from __future__ import annotations

from torch import Tensor

from eircli.common.types import IGNORE, Batch
from eircli.config import methods as method_settings
from eircli.methods.base import Context
from eircli.methods.losses import rskd, unbiased_cross_entropy
from eircli.methods.lwf import Lwf
from eircli.model.deeplab import upsample


class Mib(Lwf):
    """Unbiased: in the labels background includes old classes; for the teacher it includes the new ones.

    The new classifiers start from the background's, its probability split among them: `model.new_classifier`.

    Losses: `unce`, unbiased cross-entropy; `unkd`, unbiased distillation; in the base step and with `unbiased: false` those of
    `Lwf`.
    """

    def __init__(self, config: method_settings.MibSettings, context: Context) -> None:
        super().__init__(config, context)
        self.unbiased = config.unbiased

    def losses_of_logits(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        if batch.teacher_logits is None or not self.unbiased:
            return super().losses_of_logits(logits, batch)
        valid = batch.labels != IGNORE
        return {
            "unce": self.pixel_mean(batch)(unbiased_cross_entropy(logits, batch.labels, self.context.old)),
            "unkd": self.config.distill_weight * rskd(logits, upsample(batch.teacher_logits, valid.shape[1:]), valid).mean(),
        }
