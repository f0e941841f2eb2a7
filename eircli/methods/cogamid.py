"""CoGaMiD: replay from Gaussian mixtures ("Continual Gaussian Mixture Distribution Modeling", NeurIPS 2025)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from eircli.common.types import BACKGROUND, IGNORE, Batch
from eircli.config import methods as method_settings
from eircli.memory.mixtures import Mixtures, likelihoods, sample
from eircli.methods.base import Context
from eircli.methods.feature_replay import FeatureReplay, held_mean
from eircli.model.deeplab import DeepLab, upsample


class Cogamid(FeatureReplay):
    """Feature replay from mixtures.

    Where background is labelled, the teacher is sure of an old class and the student is not surer of a new one, features and
    their likelihoods under the old classes' mixtures are held to the teacher's. The new classes' mean features are pushed
    away from the nearest centre of an old class's mixture, and their pixels' scores apart from all other classes'.

    Losses: `mbce`, binary cross-entropy of the new classes; `features` and `likelihoods`; `repulsion`; `uncertainty`.
    """

    def __init__(self, config: method_settings.CogamidSettings, context: Context) -> None:
        assert isinstance(context.memory, Mixtures)
        centres = normalize(context.memory.means.flatten(0, 1), dim=1)
        super().__init__(config, context, context.memory, centres)
        self.cogamid, self.mixtures = config, context.memory
        self.on_cpu = Mixtures(*(tensor.cpu() for tensor in context.memory))

    def draw(self, counts: Tensor, generator: torch.Generator) -> Tensor:
        return sample(self.on_cpu, counts, generator)

    def prepare(self, batch: Batch) -> Batch:
        images = batch.images.float()
        features = self.teacher.features(images)
        predicted, grid = self.predict(batch, features)
        scores = torch.where(grid == BACKGROUND, self.teacher.classify(features)[:, 1:].amax(dim=1).sigmoid(), 0)
        background = (grid == BACKGROUND) & (predicted == BACKGROUND)
        return batch.with_(images=images, teacher_features=(features.float(), background, scores))

    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        config = self.cogamid
        theirs, background, scores = batch.teacher_features
        features = model.features(batch.images)
        low = model.classify(features)
        held = pseudo_region(scores, low[:, 1 + self.context.old :], config.threshold)
        ours = features.float()
        logits = upsample(low[:, 1:], batch.labels.shape[1:])
        uncertain = uncertainty(logits, batch.labels, self.context.old, config.sure)
        return {
            "mbce": self.new_classes(model, features, background, batch),
            "features": config.maintain_weight * held_mean((ours - theirs).square().mean(dim=1), held),
            "likelihoods": config.maintain_weight * self._likelihood_distance(ours, theirs, held),
            "repulsion": config.discriminate_weight * self.nearness(ours, batch.labels),
            "uncertainty": config.uncertainty_weight * self.pixel_mean(batch)(uncertain),
        }

    def _likelihood_distance(self, ours: Tensor, theirs: Tensor, held: Tensor) -> Tensor:
        """The mean over held cells of the squared distance of the normalised likelihoods of features [N, C, h, w], summed over classes."""
        pair = [likelihoods(self.mixtures, features.permute(0, 2, 3, 1)[held]) for features in (ours, theirs)]
        return (pair[0] - pair[1]).square().sum() / held.sum().clamp(min=1)


def pseudo_region(scores: Tensor, new_logits: Tensor, threshold: float) -> Tensor:
    """Where old classes' features are held, bool [N, h, w].

    Args:
        scores: [N, h, w], the teacher's best sigmoid of an old class where background is labelled, else 0.
        new_logits: [N, new, h, w], the student's.
    """
    return (scores >= threshold) & (scores > new_logits.detach().amax(dim=1).sigmoid())


def uncertainty(logits: Tensor, labels: Tensor, old: int, sure: float) -> Tensor:
    """(1 - margin)² of every pixel of a new class that is not confidently right, 0 elsewhere; [N, H, W].

    The margin is the sigmoid of the labelled class less the best one of another class; confidently right is a margin above 0
    at a sigmoid of at least `sure`. Old classes' logits get no gradient.

    Args:
        logits: [N, old + new, H, W], without background's.
        labels: uint8 [N, H, W].
    """
    scores = torch.cat([logits[:, :old].detach(), logits[:, old:]], dim=1).sigmoid()
    is_new = (labels > old) & (labels != IGNORE)
    place = torch.where(is_new, labels.long() - 1, 0).unsqueeze(1)
    own = scores.gather(1, place).squeeze(1)
    margin = own - scores.scatter(1, place, 0.0).amax(dim=1)
    right = (margin > 0) & (own >= sure)
    return torch.where(is_new & ~right, (1 - margin).square(), 0)
