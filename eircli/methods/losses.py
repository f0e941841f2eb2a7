"""The losses that several methods share, pixel by pixel, of full-resolution logits (a `PixelMean` reduces them); DKD's scores."""

from typing import cast

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, conv2d, softplus

from eircli.common.types import BACKGROUND, IGNORE, SoftLabels
from eircli.model.deeplab import DeepLab

PerPixel = Float[Tensor, "n h w"]


def summed_bce(
    logits: Float[Tensor, "n k h w"],
    targets: SoftLabels,
    positive_weight: float | None = None,
) -> PerPixel:
    """Binary cross-entropy per channel, summed over the channels (methods/README.md §3).

    Σ_c BCE(z_c, s_c) = Σ_c softplus(z_c) - Σ_c s_c·z_c, and s is sparse: no dense one-hot is materialised. With a
    positive weight p the terms s_c·softplus(-z_c) count p times.

    Returns:
        The loss of every pixel, ignored ones too: reduce it over `targets.valid`.
    """
    positive = _positive_term(logits.gather(1, targets.channels.long()), positive_weight)
    return softplus(logits).sum(dim=1) + (targets.weights * positive).sum(dim=1)


def new_classes_bce(
    logits: Float[Tensor, "n new h w"],
    labels: UInt8[Tensor, "n h w"],
    old: int,
    positive_weight: float | None = None,
) -> PerPixel:
    """Binary cross-entropy of the new classes' channels alone; pixels of no new class are negatives of all of them."""
    is_new = (labels > old) & (labels != IGNORE)
    channel = torch.where(is_new, labels.long() - 1 - old, 0).unsqueeze(1)
    positive = _positive_term(logits.gather(1, channel).squeeze(1), positive_weight)
    return softplus(logits).sum(dim=1) + torch.where(is_new, positive, 0)


def _positive_term(labelled: Tensor, weight: float | None) -> Tensor:
    """The term that a target channel adds to softplus(z): -z, or with positive weight p, p·softplus(-z) - softplus(z); any shape."""
    return -labelled if weight is None else (weight - 1) * softplus(labelled) - weight * labelled


def imitation_bce(
    student: Float[Tensor, "n k h w"],
    teacher: Float[Tensor, "n k h w"],
) -> PerPixel:
    """Binary cross-entropy against the teacher's sigmoids, summed over channels."""
    per_channel = binary_cross_entropy_with_logits(student, teacher.sigmoid(), reduction="none")
    return per_channel.sum(dim=1)


def cross_entropy(logits: Float[Tensor, "n k h w"], labels: UInt8[Tensor, "n h w"]) -> PerPixel:
    """Softmax cross-entropy of every pixel; 0 where ignored."""
    valid = labels != IGNORE
    index = torch.where(valid, labels, BACKGROUND).long().unsqueeze(1)
    log_p = logits.gather(1, index).squeeze(1) - logits.logsumexp(dim=1)
    return torch.where(valid, -log_p, 0)


def unbiased_cross_entropy(logits: Float[Tensor, "n k h w"], labels: UInt8[Tensor, "n h w"], old: int) -> PerPixel:
    """Softmax cross-entropy in which background stands for background or any old class; 0 where ignored.

    In a new step's labels old classes are background (MiB, Cermelli et al. 2020, eq. 5-6).
    """
    background_or_old = logits[:, : 1 + old].logsumexp(dim=1) - logits.logsumexp(dim=1)
    return torch.where(labels == BACKGROUND, -background_or_old, cross_entropy(logits, labels))


def rskd(student: Float[Tensor, "n k h w"], teacher: Float[Tensor, "n old h w"], region: Bool[Tensor, "n h w"]) -> PerPixel:
    """Unbiased distillation (MiB, eq. 8) inside a region, 0 outside; its mean is over all pixels (methods/README.md §5.6).

    To the teacher, new classes were background: the student's probability of background is that of background and
    all new classes together. The cross-entropy is divided by the teacher's number of channels.
    """
    old = teacher.shape[1]
    background_or_new = torch.cat([student[:, :1], student[:, old:]], dim=1).logsumexp(dim=1, keepdim=True)
    log_p = torch.cat([background_or_new, student[:, 1:old]], dim=1) - student.logsumexp(dim=1, keepdim=True)
    per_pixel = -(teacher.softmax(dim=1) * log_p).sum(dim=1) / old
    return torch.where(region, per_pixel, 0)


def label_guided_distillation(
    student: Float[Tensor, "n k h w"],
    teacher: Float[Tensor, "n old h w"],
    labels: UInt8[Tensor, "n h w"],
) -> PerPixel:
    """Cross-entropy of the teacher's softmax and the student's over all channels, divided by their number (MBS).

    New classes have the teacher's probability 0; where one is labelled it gets that of background, which to the teacher it was.
    """
    log_p, q = student.log_softmax(dim=1), teacher.softmax(dim=1)
    is_new = (labels >= teacher.shape[1]) & (labels != IGNORE)
    background = torch.where(is_new, labels, BACKGROUND).long().unsqueeze(1)
    per_pixel = (q[:, :1] * log_p.gather(1, background)).squeeze(1) + (q[:, 1:] * log_p[:, 1 : teacher.shape[1]]).sum(dim=1)
    return -per_pixel / student.shape[1]


def plain_distillation(
    student: Float[Tensor, "n k h w"],
    teacher: Float[Tensor, "n old h w"],
) -> PerPixel:
    """Cross-entropy of the teacher's softmax and the student's over the same channels, divided by their number (LwF)."""
    old = teacher.shape[1]
    return -(teacher.softmax(dim=1) * student[:, :old].log_softmax(dim=1)).sum(dim=1) / old


def reasoning_scores(model: DeepLab, features: Tensor, old: int) -> tuple[Tensor, Tensor]:
    """Positive and negative reasoning scores of the old classes, [N, old, h, w] each.

    Features are not negative, so a logit w·f + b splits into a positive part, max(w, 0)·f, and a negative part, min(w, 0)·f
    (eq. 4-6).
    """
    weight = torch.cat([cast(nn.Conv2d, classifier).weight for classifier in model.classifiers[1:]])[:old]
    return conv2d(features, weight.clamp(min=0)), conv2d(features, weight.clamp(max=0))
