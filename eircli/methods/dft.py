"""DFT* (Zhang et al., 2025, arXiv:2508.04267): direct fine-tuning of the new classifier alone, all else frozen."""

from __future__ import annotations

import torch
from torch import Tensor

from eircli.common.types import Batch
from eircli.config import methods as method_settings
from eircli.methods.base import CalibrationPass, Context, Method
from eircli.methods.losses import cross_entropy
from eircli.model.deeplab import DeepLab, upsample


class Dft(Method):
    """Softmax cross-entropy over all channels against the labels as they are; after the base step only the new classifier learns.

    With `future_channels` classes yet to come have their channels in the soft-max from the base step on, as negatives there.

    Losses: `ce`, cross-entropy.
    """

    def __init__(self, config: method_settings.DftSettings, context: Context) -> None:
        self.context = context

    def begin(self, model: DeepLab, calibration: CalibrationPass) -> None:
        """Freeze features and old classifiers, background's too."""
        if self.context.teacher is not None:
            model.requires_grad_(False)
            model.classifiers[-1].requires_grad_(True)

    def prepare(self, batch: Batch) -> Batch:
        return batch.with_(images=batch.images.float())

    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        features = model.features(batch.images)
        low = model.classify(features)
        if model.reserved is not None:
            low = torch.cat([low, model.reserved(features)], dim=1)
        logits = upsample(low, batch.labels.shape[1:])
        return {"ce": self.pixel_mean(batch)(cross_entropy(logits, batch.labels))}
