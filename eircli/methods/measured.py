"""The methods that a benchmark measures: EIR, its reference implementation, and fine-tuning to compare with."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from eircli.common.types import Batch, SoftLabels
from eircli.config import methods as settings
from eircli.config.replay import EirSettings
from eircli.config.section import MethodSettings
from eircli.methods.base import Context, Method
from eircli.methods.eir import Eir
from eircli.methods.finetune import Finetune
from eircli.methods.losses import rskd, summed_bce
from eircli.methods.pixel_mean import PixelMean
from eircli.model.deeplab import DeepLab, upsample

Role = Literal["incremental", "plain", "fine-tuning"]


def measured_method(role: Role, method: MethodSettings, slot: int, context: Context) -> Method:
    """The method of a role, with the recipe's settings if the recipe's method is EIR with RSKD, else with EIR's defaults.

    Args:
        slot: side of the slots where the recipe has none, pixels.
    """
    if role == "fine-tuning":
        return Finetune(settings.FinetuneSettings(name="finetune"), context)
    own = EirSettings(name="eir", slot=slot)
    if isinstance(method, EirSettings) and method.distill.loss == "rskd":
        own = method
    return (PlainEir if role == "plain" else Eir)(own, context)


class PlainEir(Eir):
    """EIR whose losses are computed from logits upsampled whole."""

    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        assert batch.targets is not None
        low, teacher = model(batch.images), batch.teacher_logits
        bce, distillation = plain_losses(low, batch.targets, teacher, batch.region, self.positive_weight)
        return {"bce": bce} if teacher is None else {"bce": bce, "rskd": self.distill.weight * distillation}


def plain_losses(
    student: Tensor,
    targets: SoftLabels,
    teacher: Tensor | None,
    region: Tensor | None,
    positive_weight: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`tiled_losses` of logits [N, K, h, w] and [N, 1 + old, h, w] upsampled whole; region bool [N, H, W].

    Returns:
        Cross-entropy and distillation, [] each; without a teacher the latter is 0.
    """
    size = targets.valid.shape[1:]
    logits = upsample(student, size)
    bce = PixelMean(targets.valid)(summed_bce(logits, targets, positive_weight))
    if teacher is None:
        return bce, torch.zeros(())
    assert region is not None
    return bce, rskd(logits, upsample(teacher, size), region).mean()
