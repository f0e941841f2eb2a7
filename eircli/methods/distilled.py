"""What EIR and image replay have in common: binary cross-entropy against targets, and distillation in a region."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from eircli.common.distributed import all_reduce_sum
from eircli.common.types import BACKGROUND, IGNORE, Batch
from eircli.config.replay import EirSettings, ImageReplaySettings
from eircli.config.section import Distill
from eircli.memory.replay import pseudo_labels
from eircli.methods.base import CalibrationPass, Context, Method
from eircli.methods.losses import imitation_bce, reasoning_scores
from eircli.methods.medians import histogram, medians
from eircli.methods.tiled_losses import tiled_decomposed_losses, tiled_losses
from eircli.model.deeplab import DeepLab
from eircli.model.tiles import best_channels

Seen = tuple[Tensor, Tensor]
"""The greatest logit of every pixel, float [N, H, W], and its channel, uint8 [N, H, W]."""

MEDIAN_BINS = 1000
"""Bins of the histograms from which median sigmoids are read."""

SURELY_NOT = -30.0
"""The logit of a class that is not there."""


class DistilledReplay(Method):
    """L = L_bce + weight · L_rskd (methods/README.md §5.6), or the decomposed objective (§9); subclasses prepare images and targets.

    Losses: `bce`, binary cross-entropy; `rskd`, region-specific distillation, weighted, if it is on. Decomposed: `bce`, where
    labels tell; `imitation`, and `reasoning` if it has a weight, of the teacher, weighted.
    """

    def __init__(self, config: EirSettings | ImageReplaySettings, context: Context) -> None:
        assert context.teacher is not None
        self.context, self.teacher = context, context.teacher
        self.distill, self.positive_weight = config.distill, config.positive_weight
        self.least, self.medians = config.threshold, config.thresholds == "median"
        self.threshold: float | Tensor = self.least
        self.decomposed = config.distill.loss == "decomposed"

    @torch.no_grad()
    def begin(self, model: DeepLab, calibration: CalibrationPass) -> None:
        """Take each class's threshold from the step's images, if thresholds are medians."""
        if self.medians:
            sure = median_certainties(self.teacher, calibration(), self.context.old)
            self.threshold = sure.clamp(max=self.least).to(next(self.teacher.parameters()).device)

    def seen(self, teacher_logits: Tensor, batch: Batch) -> Seen:
        """What the teacher sees in a batch, at its images' size, by its logits [N, 1 + old, h, w]."""
        return best_channels(teacher_logits, batch.labels.shape[1:])

    def add_pseudo_labels(self, labels: Tensor, seen: Seen) -> Tensor:
        """Labels uint8 [N, H, W] → the same with pseudo-labels, from what the teacher sees."""
        return pseudo_labels(labels, *seen, self.threshold)

    def with_distillation(self, batch: Batch, teacher_logits: Tensor | None = None) -> Batch:
        """The batch with what the teacher says of it, and the region, if distillation is on.

        Args:
            teacher_logits: [N, 1 + old, h, w] on the batch's images, where they are known.
        """
        if not self.distill.is_on:
            return batch
        scores: tuple[Tensor, ...] = ()
        if self.decomposed and self.distill.reasoning_weight:
            features = self.teacher.features(batch.images)
            teacher_logits, scores = self.teacher.classify(features), reasoning_scores(self.teacher, features, self.context.old)
        logits = self.teacher(batch.images) if teacher_logits is None else teacher_logits
        if self.decomposed and self.distill.extents:
            logits = without_shown_classes(logits, batch)
        region = distillation_mask(batch.labels, self.context.old, self.distill)
        return batch.with_(teacher_logits=logits, teacher_features=scores, region=region)

    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        assert batch.targets is not None
        features = model.features(batch.images)
        low, how = model.classify(features), (self.positive_weight, self.pixel_mean(batch), self.context.compiled)
        if batch.teacher_logits is None or batch.region is None:
            return {"bce": tiled_losses(low, batch.targets, None, None, *how)[0]}
        given = (low, batch.targets, batch.teacher_logits, batch.region)
        if not self.decomposed:
            bce, rskd = tiled_losses(*given, *how)
            return {"bce": bce, "rskd": self.distill.weight * rskd}
        bce, imitation = tiled_decomposed_losses(*given, *how)
        losses = {"bce": bce, "imitation": self.distill.weight * imitation}
        if not batch.teacher_features:
            return losses
        pairs = zip(reasoning_scores(model, features, self.context.old), batch.teacher_features, strict=True)
        scores = torch.stack([imitation_bce(ours.float(), theirs.float()).mean() for ours, theirs in pairs])
        return losses | {"reasoning": self.distill.reasoning_weight * scores.sum()}


def median_certainties(teacher: DeepLab, batches: Iterable[Batch], old: int) -> Tensor:
    """Each channel's median sigmoid where the teacher sees it on background, float [1 + old], to 1/1000; of none, near 0."""
    counts = torch.zeros(1 + old, MEDIAN_BINS, dtype=torch.int64)
    for batch in batches:
        best, channel = best_channels(teacher(batch.images.float()), batch.labels.shape[1:])
        inside = batch.labels == BACKGROUND
        counts += histogram(channel[inside], torch.sigmoid(best[inside]), 1 + old, MEDIAN_BINS)
    return medians(all_reduce_sum(counts))


def without_shown_classes(teacher_logits: Tensor, batch: Batch) -> Tensor:
    """Teacher logits [N, 1 + old, h, w] in which replayed samples hold none of the old classes that they are labelled with.

    Their labels tell where these classes are; so everywhere else the student is to imitate that they are not.
    """
    channels = torch.arange(1, teacher_logits.shape[1], device=teacher_logits.device).view(1, -1, 1)
    shown = (batch.labels.flatten(1).unsqueeze(1) == channels).any(dim=2) & batch.replayed.view(-1, 1)
    old = teacher_logits[:, 1:].masked_fill(shown[:, :, None, None], SURELY_NOT)
    return torch.cat([teacher_logits[:, :1], old], dim=1)


def replayed_background(batch: Batch, labels: Tensor) -> Tensor:
    """Where samples from the memory are background by their labels uint8 [N, H, W]: bool [N, H, W]."""
    return batch.replayed.view(-1, 1, 1) & (labels == BACKGROUND)


def distillation_mask(labels: Tensor, old: int, distill: Distill) -> Tensor:
    """The pixels to distil, bool [N, H, W], by their labels uint8 [N, H, W] before fusion; ignored pixels never."""
    valid = labels != IGNORE
    new = (labels > old) & valid
    return {"outside-new": ~new & valid, "inside-new": new, "all": valid, "none": valid & ~valid}[distill.region]
