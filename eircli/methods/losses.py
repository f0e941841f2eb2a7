"""The losses, of full-resolution logits: summed cross-entropy (method §3) and region-specific distillation (§5.6)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from eircli.types import SoftLabels

Scalar = Float[Tensor, ""]


def summed_bce(logits: Float[Tensor, "n k h w"], targets: SoftLabels, positive_weight: float | None = None) -> Scalar:
    """Binary cross-entropy per channel, summed over channels and averaged over pixels that are not ignored.

    Σ_c BCE(z_c, s_c) = Σ_c softplus(z_c) - Σ_c s_c·z_c, and s is sparse: nothing dense is built of it. With a
    positive weight p the terms s_c·softplus(-z_c) count p times. 0 if every pixel is ignored.
    """
    labelled = logits.gather(1, targets.channels.long())
    per_layer = -labelled if positive_weight is None else (positive_weight - 1) * softplus(labelled) - positive_weight * labelled
    per_pixel = softplus(logits).sum(dim=1) + (targets.weights * per_layer).sum(dim=1)
    return torch.where(targets.valid, per_pixel, 0).sum() / targets.valid.sum().clamp(min=1)


def rskd(student: Float[Tensor, "n k h w"], teacher: Float[Tensor, "n old h w"], region: Bool[Tensor, "n h w"]) -> Scalar:
    """Unbiased distillation (MiB, Cermelli et al. 2020, eq. 8) inside a region, averaged over all pixels.

    To the teacher, new classes were background: the student's probability of background is that of background and
    all new classes together. The cross-entropy is divided by the teacher's number of channels.
    """
    old = teacher.shape[1]
    background_or_new = torch.cat([student[:, :1], student[:, old:]], dim=1).logsumexp(dim=1, keepdim=True)
    log_p = torch.cat([background_or_new, student[:, 1:old]], dim=1) - student.logsumexp(dim=1, keepdim=True)
    per_pixel = -(teacher.softmax(dim=1) * log_p).sum(dim=1) / old
    return torch.where(region, per_pixel, 0).mean()
