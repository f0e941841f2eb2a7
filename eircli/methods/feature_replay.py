"""What STAR and CoGaMiD have in common: new classes learn against features drawn from what is kept of old ones."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize, softplus

from eircli.common.types import BACKGROUND, Batch
from eircli.config import methods as method_settings
from eircli.memory.mixtures import Mixtures
from eircli.memory.prototypes import Prototypes, on_grid
from eircli.methods.base import CalibrationPass, Context, Method
from eircli.methods.losses import new_classes_bce
from eircli.model.deeplab import DeepLab, predict, upsample


class FeatureReplay(Method):
    """New classes are trained on the images, on features drawn of the old classes, and on re-weighted background, the latter two
    as negatives.

    A new step's images show old classes and background less often than all images together. The drawn features and the
    weight make up for what is missing of each. Old classifiers get no gradient.

    Args:
        kept: the old classes' distributions of features, with their counts.
        centres: [m, C], the directions from which the new classes' mean features are pushed away, of length 1.
    """

    def __init__(
        self,
        config: method_settings.StarSettings,
        context: Context,
        kept: Prototypes | Mixtures,
        centres: Tensor,
    ) -> None:
        assert context.teacher is not None
        self.config, self.context, self.teacher, self.kept = config, context, context.teacher, kept
        self.centres, self.positive_weight = centres, config.positive_weight_at(base=False)
        self.per_batch = torch.zeros(context.old)
        """Features to replay of each old class per batch, on average."""
        self.more_background = 0.0
        """Weight at which the batch's background counts once more."""

    @abstractmethod
    def draw(self, counts: Tensor, generator: torch.Generator) -> Tensor:
        """Features float [Σ counts, C] drawn from the old classes' distributions, `counts` int64 [old] of each."""

    @torch.no_grad()
    def begin(self, model: DeepLab, calibration: CalibrationPass) -> None:
        """Compare the cells of old classes and background in this step's images with the counts that are kept."""
        shown = torch.zeros(1 + self.context.old)
        for batch in calibration():
            predicted, grid = self.predict(batch, self.teacher.features(batch.images.float()))
            shown += torch.bincount(predicted[grid == BACKGROUND].long(), minlength=len(shown)).cpu()
        missing = (self.kept.cells.cpu() - shown[1:]).clamp(min=0)
        self.per_batch = missing / max(self.context.per_epoch, 1)
        ratio = float(self.kept.background) / float(shown[0].clamp(min=1))
        self.more_background = max(ratio - self.config.shared_background, 0.0)

    def predict(self, batch: Batch, features: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's predictions on the grid of features [N, C, h, w], and the labels there; both uint8 [N, h, w]."""
        predicted = predict(self.teacher.classify(features), least_logit=self.config.teacher_logit)
        return predicted, on_grid(batch.labels, features.shape[2:])

    def new_classes(self, model: DeepLab, features: Tensor, background: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy, [], of the new classes on pixels, replayed features and further background, as one mean.

        Args:
            features: [N, C, h, w].
            background: bool [N, h, w], where background is labelled and predicted.
        """
        newest = model.classifiers[-1]
        low = newest(features)
        logits = upsample(low, batch.labels.shape[1:])
        pixels = self.pixel_mean(batch)(new_classes_bce(logits, batch.labels, self.context.old, self.positive_weight))
        generator = torch.Generator().manual_seed(batch.seed)
        counts = (self.per_batch + torch.rand(len(self.per_batch), generator=generator)).long()
        drawn = self.draw(counts, generator).to(features)
        replayed = softplus(newest(drawn[:, :, None, None])).sum()
        repeated = (softplus(low).sum(dim=1) * background).sum()
        cells = background.numel()
        extra = (replayed + self.more_background * repeated) / cells
        share = (len(drawn) + self.more_background * background.sum()) / cells
        return (pixels + extra.float()) / (1 + share)

    def nearness(self, features: Tensor, labels: Tensor) -> Tensor:
        """The mean, [], over the batch's new classes of 1 / (distance of their mean direction to the nearest centre).

        Args:
            features: [N, C, h, w].
            labels: uint8 [N, H, W].
        """
        inverse = []
        unit = normalize(features, dim=1)
        for channel in range(1 + self.context.old, 1 + self.context.old + self.context.new):
            share = interpolate((labels == channel).float().unsqueeze(1), features.shape[2:], mode="area")
            # Classes without a pixel in the batch have no mean direction and contribute 0.
            total = (unit * share).sum(dim=(0, 2, 3))
            distance = (normalize(total, dim=0) - self.centres).norm(dim=1).min()
            inverse.append(torch.where(share.sum() > 0, 1 / distance.clamp(min=1e-6), 0))
        present = torch.stack([value > 0 for value in inverse]).sum().clamp(min=1)
        return torch.stack(inverse).sum() / present


def held_mean(per_cell: Tensor, held: Tensor) -> Tensor:
    """The mean, [], of [N, h, w] over the cells held, bool [N, h, w]; 0 without one."""
    return torch.where(held, per_cell, 0).sum() / held.sum().clamp(min=1)
