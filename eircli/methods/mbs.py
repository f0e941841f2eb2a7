"""MBS: mitigating background shift (Park et al., ECCV 2024, arXiv:2407.11859), with the start of SELECT (`model.new_classifier`)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from eircli.common.types import BACKGROUND, IGNORE, Batch
from eircli.config import methods as method_settings
from eircli.memory.prototypes import on_grid
from eircli.methods.base import Context
from eircli.methods.losses import cross_entropy, label_guided_distillation, unbiased_cross_entropy
from eircli.methods.lwf import Lwf
from eircli.model.deeplab import DeepLab, upsample


class Mbs(Lwf):
    """What the teacher is sure of is distilled; background and new classes are kept apart.

    Features are held to the teacher's the more, the surer it is of a cell, and not where a new class is labelled. The
    teacher's outputs are distilled with background's probability given to the new class where one is labelled. The new
    classifiers are pushed to be orthogonal to all others. The new classifiers start like similar old ones
    (`model.new_classifier`).

    Losses: `unce`, unbiased cross-entropy (`ce` if `background` is selective, and in the base step); `features`, `outputs`,
    `orthogonal`.
    """

    def __init__(self, config: method_settings.MbsSettings, context: Context) -> None:
        super().__init__(config, context)
        self.mbs = config

    def prepare(self, batch: Batch) -> Batch:
        images, teacher = batch.images.float(), self.context.teacher
        if teacher is None:
            return batch.with_(images=images)
        features = teacher.features(images)
        low = teacher.classify(features)
        certainty = certainties(low, on_grid(batch.labels, low.shape[2:]), self.context.old)
        return batch.with_(images=images, teacher_logits=low, teacher_features=(features.float(), certainty))

    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        features = model.features(batch.images)
        losses = self.losses_of_logits(upsample(model.classify(features), batch.labels.shape[1:]), batch)
        if batch.teacher_logits is not None:
            theirs, certainty = batch.teacher_features
            distance = (features.float() - theirs).square().mean(dim=1)
            losses["features"] = self.mbs.feature_weight * (certainty * distance).mean()
            losses["orthogonal"] = self._orthogonality(model)
        return losses

    def losses_of_logits(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        if batch.teacher_logits is None:
            return super().losses_of_logits(logits, batch)
        mean, old, labels = self.pixel_mean(batch), self.context.old, batch.labels
        theirs = upsample(batch.teacher_logits, labels.shape[1:])
        losses = {}
        if self.mbs.background == "unbiased":
            losses["unce"] = mean(unbiased_cross_entropy(logits, labels, old))
        else:
            losses["ce"] = mean(cross_entropy(logits, selective_labels(labels, theirs, self.mbs.threshold)))
        losses["outputs"] = self.mbs.distill_weight * mean(label_guided_distillation(logits, theirs, labels))
        return losses

    def _orthogonality(self, model: DeepLab) -> Tensor:
        """Weighted by the share of new classes among all channels, so that one of many classes is not pushed as hard as many."""
        weight = torch.cat([cast(nn.Conv2d, classifier).weight for classifier in model.classifiers]).flatten(1)
        new = self.context.new
        return self.mbs.orthogonal_weight * new / len(weight) * squared_cosines(weight.float(), new)


def certainties(teacher_logits: Tensor, labels: Tensor, old: int) -> Tensor:
    """The teacher's best softmax probability in every cell, 0 where a new class is labelled: it knows nothing of that.

    Args:
        teacher_logits: [N, 1 + old, h, w].
        labels: uint8 [N, h, w].

    Returns:
        float [N, h, w].
    """
    best = teacher_logits.float().softmax(dim=1).amax(dim=1)
    return torch.where((labels > old) & (labels != IGNORE), 0, best)


def selective_labels(labels: Tensor, teacher_logits: Tensor, threshold: float) -> Tensor:
    """Labels uint8 [N, H, W] whose background is an old class where the teacher [N, 1 + old, H, W] is sure of one, and ignored
    where it is not, but takes any old class together for likelier than background."""
    probability = teacher_logits.softmax(dim=1)
    best, channel = probability.max(dim=1)
    sure = (channel != BACKGROUND) & (best >= threshold)
    doubtful = probability[:, BACKGROUND] < 0.5
    completed = torch.where(sure, channel.to(torch.uint8), torch.where(doubtful, IGNORE, labels))
    return torch.where(labels == BACKGROUND, completed, labels)


def squared_cosines(weight: Tensor, new: int) -> Tensor:
    """The mean squared cosine, [], of each of the last `new` rows of weight [K, C] with every other row, which gets no gradient."""
    unit = normalize(weight, dim=1)
    # Not a matrix product, which autocast would compute in low precision.
    cosines = (unit[-new:].unsqueeze(1) * unit.detach()).sum(dim=2)
    itself = torch.eye(len(weight), dtype=torch.bool, device=weight.device)[-new:]
    return torch.where(itself, 0, cosines.square()).sum() / (new * (len(weight) - 1))
