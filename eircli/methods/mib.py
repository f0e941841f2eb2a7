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
    """LwF with both losses unbiased: background may be an old class to the labels, a new class to the old model.

    The new classifiers start from the background's, its probability shared out among them: `model.new_classifier`.
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
