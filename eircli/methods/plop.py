"""PLOP (Douillard et al., CVPR 2021, arXiv:2011.11390): local POD, and pseudo-labels gated by their entropy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eircli.common.distributed import all_reduce_sum
from eircli.common.types import BACKGROUND, IGNORE, Batch
from eircli.config import methods as method_settings
from eircli.methods.base import CalibrationPass, Context, Method
from eircli.methods.losses import cross_entropy
from eircli.methods.medians import histogram, medians
from eircli.model.deeplab import DeepLab, upsample

BINS = {"paper": 1000, "release": 100}
"""Bins of the entropy histograms from which medians are read, by the kind of gate."""


class Plop(Method):
    """Cross-entropy against pseudo-labels with low entropy, and local POD at all stages and on the logits.

    Losses: `ce`, cross-entropy; `pod`, local POD.
    """

    def __init__(self, config: method_settings.PlopSettings, context: Context) -> None:
        self.config, self.context = config, context
        self.thresholds = torch.empty(0)

    @torch.no_grad()
    def begin(self, model: DeepLab, calibration: CalibrationPass) -> None:
        """Each old channel's entropy threshold: the median entropy of the background pixels assigned to it by the teacher."""
        teacher, gate, channels = self.context.teacher, self.config.gate, 1 + self.context.old
        if teacher is None:
            return
        # The released code divides entropies that are normalised already by channels and by another maximum.
        scale = 1.0 if gate == "paper" else 1 / (channels * math.log(channels + self.context.new))
        bins = BINS[gate]
        counts = torch.zeros(channels, bins, dtype=torch.int64)
        for batch in calibration():
            uncertain, guess = entropy(upsample(teacher(batch.images.float()), batch.labels.shape[1:]))
            inside = batch.labels == BACKGROUND
            counts += histogram(guess[inside], scale * uncertain[inside], channels, bins)
        counts = all_reduce_sum(counts)
        thresholds = medians(counts) if gate == "paper" else released_medians(counts)
        thresholds = thresholds.clamp(min=self.config.least_threshold) / scale
        self.thresholds = thresholds.to(next(teacher.parameters()).device)

    def prepare(self, batch: Batch) -> Batch:
        images, teacher = batch.images.float(), self.context.teacher
        if teacher is None:
            return batch.with_(images=images)
        stages = teacher.stages(images)
        low = teacher.classify(stages[-1])
        return batch.with_(images=images, teacher_logits=low, teacher_features=(*self._held(stages), low))

    def _held(self, stages: list[Tensor]) -> list[Tensor]:
        """The maps under POD, of `DeepLab.stages`: the backbone's, and the head's if `pod_head`."""
        return stages if self.config.pod_head else stages[:-1]

    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        stages = model.stages(batch.images)
        low = model.classify(stages[-1])
        logits, labels = upsample(low, batch.labels.shape[1:]), batch.labels
        if batch.teacher_logits is None:
            return {"ce": self.pixel_mean(batch)(cross_entropy(logits, labels))}
        targets, factor = gated_pseudo_labels(labels, upsample(batch.teacher_logits, labels.shape[1:]), self.thresholds)
        per_image = cross_entropy(logits, targets).sum(dim=(1, 2)) / (labels != IGNORE).sum(dim=(1, 2)).clamp(min=1)
        return {"ce": (factor * per_image).mean(), "pod": self._pod([*self._held(stages), low], batch.teacher_features)}

    def _pod(self, student: list[Tensor], teacher: tuple[Tensor, ...]) -> Tensor:
        """Local POD of every map and of the logits, their mean under the schedule √(channels / new classes)."""
        old, new = self.context.old, self.context.new
        *stages, low = student
        merged = torch.cat([low[:, :1] + low[:, 1 + old :].sum(dim=1, keepdim=True), low[:, 1 : 1 + old]], dim=1)
        weights = [self.config.pod_weight] * len(stages) + [self.config.pod_logits_weight]
        parts = [
            weight * local_pod(ours, theirs, self.config.pod_scales)
            for weight, ours, theirs in zip(weights, [*stages, merged], teacher, strict=True)
        ]
        return math.sqrt((1 + old + new) / new) * torch.stack(parts).mean()


def released_medians(counts: Tensor) -> Tensor:
    """Histograms int64 [K, bins] over 0..1 → what PLOP's released code takes for their medians, float [K]; of none, 0.

    It walks the bins for the one that takes a running sum past half of the pixels, and interpolates within; but the sum adds up
    the bins' numbers, not their counts. Of many pixels the bin found is the first that holds half of them alone; if none does,
    the last one's empty count makes the threshold infinite. Of few, an empty bin may be found: nan, below which nothing is.
    """
    bins, total = counts.shape[1], counts.sum(dim=1, keepdim=True)
    number = torch.arange(bins, device=counts.device)
    running, half = number * (number - 1) // 2, total.double() / 2
    fits = (half >= running) & (half <= running + counts)
    found = torch.where(fits.any(dim=1, keepdim=True), fits.int().argmax(dim=1, keepdim=True), bins - 1)
    passed = torch.where(fits.any(dim=1, keepdim=True), running[found], bins * (bins - 1) // 2)
    within = (half - passed) / counts.gather(1, found)
    return torch.where(total > 0, (found + within) / bins, 0).squeeze(1).float()


def entropy(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [N, K, H, W] → entropy of their softmax, normalised to 0..1, and the best channel, both [N, H, W]."""
    log_p = logits.log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1) / math.log(logits.shape[1]), logits.argmax(dim=1)


def gated_pseudo_labels(labels: Tensor, teacher_logits: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Labels whose background is the teacher's prediction where its entropy is low, and ignored elsewhere (PLOP, §3.3).

    Returns:
        uint8 [N, H, W]; and for every image the share of its background with low entropy, 1 if it has none.
    """
    uncertain, guess = entropy(teacher_logits)
    background = labels == BACKGROUND
    sure = background & (uncertain < thresholds[guess])
    targets = torch.where(sure, guess.to(torch.uint8), torch.where(background, IGNORE, labels))
    count = background.sum(dim=(1, 2))
    return targets, torch.where(count > 0, sure.sum(dim=(1, 2)) / count.clamp(min=1), 1.0)


def local_pod(student: Tensor, teacher: Tensor, scales: tuple[int, ...]) -> Tensor:
    """Distance of two feature maps' local POD embeddings, the mean over images (PLOP, §3.2).

    The embedding of a map [N, C, H, W], squared: at every scale s it is cut into s × s windows, and each gives its means
    over rows and over columns.
    """
    ours, theirs = (pod_embedding(maps.float().square(), scales) for maps in (student, teacher))
    distance: Tensor = torch.linalg.vector_norm(ours - theirs, dim=1)
    return distance.mean()


def pod_embedding(maps: Tensor, scales: tuple[int, ...]) -> Tensor:
    """[N, C, H, W] → [N, E]; remainder rows and columns are dropped."""
    height, width = maps.shape[2:]
    pooled = []
    for scale in (scale for scale in scales if scale <= min(height, width)):
        rows, columns = height // scale, width // scale
        for top in range(0, scale * rows, rows):
            for left in range(0, scale * columns, columns):
                window = maps[:, :, top : top + rows, left : left + columns]
                pooled += [window.mean(dim=3).flatten(1), window.mean(dim=2).flatten(1)]
    return torch.cat(pooled, dim=1)
