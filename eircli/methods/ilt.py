"""ILT: incremental learning techniques (Michieli & Zanuttigh, ICCV workshops 2019, arXiv:1907.13372)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import mse_loss

from eircli.common.types import Batch
from eircli.config import methods as method_settings
from eircli.methods.base import Context
from eircli.methods.lwf import Lwf
from eircli.model.deeplab import DeepLab, upsample


class Ilt(Lwf):
    """LwF, plus the mean squared error between student and teacher encoder features.

    Losses: `ce` and `kd`, as in `Lwf`; `features`, the squared error.
    """

    def __init__(self, config: method_settings.IltSettings, context: Context) -> None:
        super().__init__(config, context)
        self.feature_weight = config.feature_weight

    def prepare(self, batch: Batch) -> Batch:
        images, teacher = batch.images.float(), self.context.teacher
        if teacher is None:
            return batch.with_(images=images)
        *_, encoded, features = teacher.stages(images)
        return batch.with_(images=images, teacher_logits=teacher.classify(features), teacher_features=(encoded,))

    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        *_, encoded, features = model.stages(batch.images)
        losses = self.losses_of_logits(upsample(model.classify(features), batch.labels.shape[1:]), batch)
        for theirs in batch.teacher_features:
            losses["features"] = self.feature_weight * mse_loss(encoded.float(), theirs.float())
        return losses
