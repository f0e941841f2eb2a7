"""The methods that a benchmark measures: EIR, the same the plain way, and fine-tuning to compare with."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from eircli.common.types import Batch, SoftLabels
from eircli.config import methods as settings
from eircli.methods.base import Context, Method
from eircli.methods.eir import Eir
from eircli.methods.finetune import Finetune
from eircli.methods.losses import rskd, summed_bce
from eircli.methods.pixel_mean import PixelMean
from eircli.model.deeplab import DeepLab, upsample

Role = Literal["incremental", "plain", "fine-tuning"]


def measured_method(role: Role, method: settings.MethodSettings, slot: int, context: Context) -> Method:
    """The method of a role, with a recipe's own settings where the recipe is of it.

    Args:
        slot: side of the slots where the recipe has none, pixels.
    """
    if role == "fine-tuning":
        return Finetune(settings.FinetuneSettings(name="finetune"), context)
    own = method if isinstance(method, settings.EirSettings) else settings.EirSettings(name="eir", slot=slot)
    return (PlainEir if role == "plain" else Eir)(own, context)


class PlainEir(Eir):
    """EIR with losses of logits upsampled whole."""

    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        assert batch.targets is not None
        assert batch.teacher_logits is not None
        assert batch.region is not None
        bce, rskd = plain_losses(model(batch.images), batch.targets, batch.teacher_logits, batch.region)
        return {"bce": bce, "rskd": self.distill.weight * rskd}


def plain_losses(student: Tensor, targets: SoftLabels, teacher: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
    """`tiled_losses` of logits [N, K, h, w] and [N, 1 + old, h, w] upsampled whole to the size of `region`, bool [N, H, W]."""
    size = targets.valid.shape[1:]
    logits = upsample(student, size)
    bce = PixelMean(targets.valid)(summed_bce(logits, targets))
    return bce, rskd(logits, upsample(teacher, size), region).mean()
