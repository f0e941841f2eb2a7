"""New classifiers that start from those of similar old classes (SELECT, BMVC 2026, arXiv:2608.30281): `model.new_classifier`.

Temperature and noise are not SELECT's but ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from eircli.common.distributed import all_reduce_sum
from eircli.common.types import IGNORE, Batch
from eircli.model.deeplab import DeepLab
from eircli.model.tiles import best_channels

TEMPERATURE = 0.1
"""Of the softmax over the shares of the old classes, which lie in 0..1."""
NOISE = 0.01
"""Standard deviation of the noise, relative to that of the old classes' weights."""


def start_from_similar(model: DeepLab, teacher: DeepLab, batches: Iterable[Batch], generator: torch.Generator) -> None:
    """Start the newest classifiers from those of the old classes that the teacher sees most in the new classes' objects.

    Args:
        batches: a pass over this process's samples of the step; all processes' counts are added up.
        generator: of the noise, seeded alike in all processes, on the CPU.
    """
    newest = cast(nn.Conv2d, model.classifiers[-1])
    # The student's own are the teacher's, which may have been cast to a lower precision.
    old = [cast(nn.Conv2d, classifier) for classifier in list(model.classifiers)[1:-1]]
    weight = torch.cat([classifier.weight for classifier in old]).flatten(1).cpu()
    bias = torch.cat([cast(Tensor, classifier.bias) for classifier in old]).cpu()
    shares = mixing_shares(nearest_old_classes(teacher, batches, len(weight), newest.out_channels))
    mixed = shares @ weight
    noise = torch.randn(mixed.shape, generator=generator) * (NOISE * weight.std(unbiased=False))
    with torch.no_grad():
        newest.weight.copy_((mixed + noise)[:, :, None, None])
        cast(Tensor, newest.bias).copy_(shares @ bias)


@torch.no_grad()
def nearest_old_classes(teacher: DeepLab, batches: Iterable[Batch], old: int, new: int) -> Tensor:
    """int64 [new, old]: of how many pixels of each new class the teacher's best channel, background aside, is each old class."""
    counts = torch.zeros(new, old, dtype=torch.int64)
    for batch in batches:
        nearest = best_channels(teacher(batch.images.float())[:, 1:], batch.labels.shape[1:])[1]
        inside = (batch.labels > old) & (batch.labels != IGNORE)
        place = (batch.labels[inside].long() - 1 - old) * old + nearest[inside].long()
        counts += torch.bincount(place, minlength=new * old).view(new, old).cpu()
    return all_reduce_sum(counts)


def mixing_shares(counts: Tensor) -> Tensor:
    """Counts [new, old] → float [new, old], summing to 1: the softmax of the shares over `TEMPERATURE`, even without a pixel."""
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    return (shares / TEMPERATURE).softmax(dim=1)
