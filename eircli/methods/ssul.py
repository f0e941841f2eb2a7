"""SSUL (Cha et al., NeurIPS 2021, arXiv:2106.11562) without the saliency detector; with a memory, SSUL-M.

The paper splits background by an external saliency detector into true background and unknown objects. Here unknown is
what the teacher predicts neither as a class nor as background: no class reaches the threshold, and background's sigmoid is
below one half. So there is no unknown class in the base step, which has no teacher.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eircli.common.types import BACKGROUND, Batch
from eircli.config import methods as method_settings
from eircli.memory.replay import one_hot, pseudo_labels
from eircli.methods.base import CalibrationPass, Context, Method
from eircli.methods.tiled_losses import tiled_losses
from eircli.model.deeplab import DeepLab, upsample
from eircli.model.tiles import best_channels


class Ssul(Method):
    """Only the classifiers of background, unknown and the new classes learn, on labels completed by the teacher.

    Losses: `bce`, binary cross-entropy.
    """

    def __init__(self, config: method_settings.SsulSettings, context: Context) -> None:
        assert context.teacher is not None
        self.config, self.context, self.teacher = config, context, context.teacher

    def begin(self, model: DeepLab, calibration: CalibrationPass) -> None:
        """Freeze features and old classifiers."""
        model.requires_grad_(False)
        assert model.unknown is not None
        for classifier in (model.classifiers[0], model.classifiers[-1], model.unknown):
            classifier.requires_grad_(True)

    def prepare(self, batch: Batch) -> Batch:
        images, labels = batch.images.float(), batch.labels
        low = self.teacher(images)
        completed = pseudo_labels(labels, *best_channels(low, labels.shape[1:]), self.config.threshold)
        unknown = 1 + self.context.old + self.context.new
        background = upsample(low[:, :1], labels.shape[1:])[:, 0]
        doubtful = (completed == BACKGROUND) & (background < 0)
        return batch.with_(images=images, targets=one_hot(torch.where(doubtful, unknown, completed)))

    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        assert batch.targets is not None
        assert model.unknown is not None
        features = model.features(batch.images)
        low = torch.cat([model.classify(features), model.unknown(features)], dim=1)
        bce, _ = tiled_losses(
            low,
            batch.targets,
            positive_weight=self.config.positive_weight,
            mean=self.pixel_mean(batch),
            compiled=self.context.compiled,
        )
        return {"bce": bce}
