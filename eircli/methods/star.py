"""STAR: prototype replay (Chen et al., "Saving 100x Storage", NeurIPS 2023)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize, softplus

from eircli.common.types import BACKGROUND, Batch
from eircli.config import methods as method_settings
from eircli.memory.prototypes import Prototypes, on_grid, sample
from eircli.methods.base import CalibrationPass, Context, Method
from eircli.methods.losses import new_classes_bce
from eircli.model.deeplab import DeepLab, predict, upsample


class Star(Method):
    """New classes are trained on the images, on features sampled from the old classes' prototypes, and on re-weighted background,
    the latter two as negatives.

    A new step's images show old classes and background less often than all images together. The sampled features and the
    weight make up for what is missing of each. Old classes' features are held to the teacher's where it predicts these classes
    (OCFM), and the new classes' mean features are pushed away from the nearest old prototype (SAD). Old classifiers get no
    gradient.

    Losses: `mbce`, binary cross-entropy of the new classes; `ocfm`; `sad`.
    """

    def __init__(self, config: method_settings.StarSettings, context: Context) -> None:
        assert context.teacher is not None
        assert isinstance(context.memory, Prototypes)
        self.config, self.context, self.teacher, self.prototypes = config, context, context.teacher, context.memory
        self.per_batch = torch.zeros(context.old)
        """Features to replay of each old class per batch, on average."""
        self.more_background = 0.0
        """Weight at which the batch's background counts once more."""

    @torch.no_grad()
    def begin(self, model: DeepLab, calibration: CalibrationPass) -> None:
        """Compare the cells of old classes and background in this step's images with the counts in the prototypes."""
        shown = torch.zeros(1 + self.context.old)
        for batch in calibration():
            predicted, grid = self._predict(batch, self.teacher.features(batch.images.float()))
            shown += torch.bincount(predicted[grid == BACKGROUND].long(), minlength=len(shown)).cpu()
        missing = (self.prototypes.cells.cpu() - shown[1:]).clamp(min=0)
        self.per_batch = missing / max(self.context.per_epoch, 1)
        ratio = float(self.prototypes.background) / float(shown[0].clamp(min=1))
        self.more_background = max(ratio - self.config.shared_background, 0.0)

    def _predict(self, batch: Batch, features: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's predictions on the grid of features [N, C, h, w], and the labels there; both uint8 [N, h, w]."""
        return predict(self.teacher.classify(features)), on_grid(batch.labels, features.shape[2:])

    def prepare(self, batch: Batch) -> Batch:
        images = batch.images.float()
        features = self.teacher.features(images)
        predicted, grid = self._predict(batch, features)
        held = (grid == BACKGROUND) & (predicted != BACKGROUND)
        background = (grid == BACKGROUND) & (predicted == BACKGROUND)
        return batch.with_(images=images, region=held, teacher_features=(features.float(), background))

    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        config = self.config
        theirs, background = batch.teacher_features
        features = model.features(batch.images)
        losses = {"mbce": self._new_classes(model, features, background, batch)}
        assert batch.region is not None
        held = batch.region.unsqueeze(1)
        distance = torch.where(held, (features.float() - theirs).square(), 0).sum()
        losses["ocfm"] = config.maintain_weight * distance / (held.sum().clamp(min=1) * features.shape[1])
        losses["sad"] = config.discriminate_weight * self._nearness(features.float(), batch.labels)
        return losses

    def _new_classes(self, model: DeepLab, features: Tensor, background: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy of the new classes on pixels, replayed features and further background, as one mean."""
        newest = model.classifiers[-1]
        low = newest(features)
        logits = upsample(low, batch.labels.shape[1:])
        pixels = self.pixel_mean(batch)(new_classes_bce(logits, batch.labels, self.context.old, self.config.positive_weight))
        generator = torch.Generator().manual_seed(batch.seed)
        counts = (self.per_batch + torch.rand(len(self.per_batch), generator=generator)).long()
        drawn = sample(self.prototypes, counts, generator).to(features)
        replayed = softplus(newest(drawn[:, :, None, None])).sum()
        repeated = (softplus(low).sum(dim=1) * background).sum()
        cells = background.numel()
        extra = (replayed + self.more_background * repeated) / cells
        share = (len(drawn) + self.more_background * background.sum()) / cells
        return (pixels + extra.float()) / (1 + share)

    def _nearness(self, features: Tensor, labels: Tensor) -> Tensor:
        """The mean over the batch's new classes of 1 / (distance of their mean direction to the nearest prototype)."""
        inverse = []
        unit = normalize(features, dim=1)
        for channel in range(1 + self.context.old, 1 + self.context.old + self.context.new):
            share = interpolate((labels == channel).float().unsqueeze(1), features.shape[2:], mode="area")
            # Classes without a pixel in the batch have no mean direction and contribute 0.
            total = (unit * share).sum(dim=(0, 2, 3))
            distance = (normalize(total, dim=0) - self.prototypes.direction).norm(dim=1).min()
            inverse.append(torch.where(share.sum() > 0, 1 / distance.clamp(min=1e-6), 0))
        present = torch.stack([value > 0 for value in inverse]).sum().clamp(min=1)
        return torch.stack(inverse).sum() / present
