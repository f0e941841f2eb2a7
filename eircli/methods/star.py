"""STAR: prototype replay (Chen et al., "Saving 100x Storage", NeurIPS 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from eircli.common.types import BACKGROUND, Batch
from eircli.config import methods as method_settings
from eircli.memory.prototypes import Prototypes, sample
from eircli.methods.base import Context
from eircli.methods.feature_replay import FeatureReplay, held_mean
from eircli.model.deeplab import DeepLab


class Star(FeatureReplay):
    """Feature replay from prototypes.

    Old classes' features are held to the teacher's where it predicts these classes (OCFM), and the new classes' mean
    features are pushed away from the nearest old prototype (SAD).

    Losses: `mbce`, binary cross-entropy of the new classes; `ocfm`; `sad`.
    """

    def __init__(self, config: method_settings.StarSettings, context: Context) -> None:
        assert isinstance(context.memory, Prototypes)
        super().__init__(config, context, context.memory, context.memory.direction)
        self.prototypes = context.memory

    def draw(self, counts: Tensor, generator: torch.Generator) -> Tensor:
        return sample(self.prototypes, counts, generator)

    def prepare(self, batch: Batch) -> Batch:
        images = batch.images.float()
        features = self.teacher.features(images)
        predicted, grid = self.predict(batch, features)
        held = (grid == BACKGROUND) & (predicted != BACKGROUND)
        background = (grid == BACKGROUND) & (predicted == BACKGROUND)
        return batch.with_(images=images, region=held, teacher_features=(features.float(), background))

    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        config = self.config
        theirs, background = batch.teacher_features
        features = model.features(batch.images)
        losses = {"mbce": self.new_classes(model, features, background, batch)}
        assert batch.region is not None
        distance = (features.float() - theirs).square().mean(dim=1)
        losses["ocfm"] = config.maintain_weight * held_mean(distance, batch.region)
        losses["sad"] = config.discriminate_weight * self.nearness(features.float(), batch.labels)
        return losses
