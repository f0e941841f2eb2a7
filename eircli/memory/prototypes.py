"""Prototypes: the features of each old class as a distribution (direction, per-channel noise, norm).

After STAR (Chen et al., "Saving 100x Storage", NeurIPS 2023): a class's features are taken to be p + ε along the unit
sphere, ε ~ N(0, noise²) per channel, at a length ~ N(norm_mean, norm_std²).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from eircli.common.errors import UserError


class Prototypes(NamedTuple):
    """What is kept of K classes, float32; cells are those of the network's feature map."""

    class_ids: Tensor
    """int64 [K]."""
    direction: Tensor
    """[K, C], of length 1."""
    noise: Tensor
    """[K, C]: standard deviation of unit features about the direction."""
    norm_mean: Tensor
    """[K]."""
    norm_std: Tensor
    """[K]."""
    cells: Tensor
    """[K]: how many cells the class had in the images of the step that learned it."""
    background: Tensor
    """[]: how many cells of background the steps so far had."""


def on_grid(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Labels uint8 [N, H, W] → uint8 [N, h, w], sampled at the centres of the cells of a feature map of `size` (h, w)."""
    picked: Tensor = interpolate(labels.unsqueeze(1).float(), tuple(size), mode="nearest-exact")
    return picked.squeeze(1).to(torch.uint8)


def gather(batches: Iterable[tuple[Tensor, Tensor, Tensor]], channels: Sequence[int], class_ids: Sequence[int]) -> Prototypes:
    """The prototypes of `channels`, from (features [N, C, h, w], labels uint8 [N, h, w], is background bool [N, h, w]).

    Raises:
        UserError: a class has no cell.
    """
    sums: dict[int, list[Tensor]] = {channel: [] for channel in channels}
    background = torch.zeros((), dtype=torch.float64)
    for features, labels, is_background in batches:
        background += is_background.sum().cpu()
        for channel in channels:
            inside = features.permute(0, 2, 3, 1)[labels == channel].double().cpu()
            unit, norm = normalize(inside, dim=1), inside.norm(dim=1)
            moments = [unit.sum(0), unit.square().sum(0), norm.sum(), norm.square().sum(), torch.tensor(float(len(norm)))]
            sums[channel] = [a + b for a, b in zip(sums[channel], moments, strict=True)] if sums[channel] else moments
    if empty := [class_id for channel, class_id in zip(channels, class_ids, strict=True) if not sums[channel][4]]:
        raise UserError(f"class {empty[0]}: too small for a prototype: no cell of the feature map holds it")
    columns = []
    for channel in channels:
        first, second, norm, norm_square, count = sums[channel]
        direction = normalize(first, dim=0)
        spread = (second - 2 * direction * first) / count + direction.square()
        mean = norm / count
        columns.append((direction, spread.clamp(min=0).sqrt(), mean, (norm_square / count - mean**2).clamp(min=0).sqrt(), count))
    direction, noise, mean, std, count = (torch.stack(parts).float() for parts in zip(*columns, strict=True))
    return Prototypes(torch.tensor(class_ids), direction, noise, mean, std, count, background.float())


def merge(before: Prototypes, new: Prototypes, shared_background: float) -> Prototypes:
    """The prototypes of both; the share `shared_background` of the new step's background cells is taken to be counted already."""
    background = before.background + (1 - shared_background) * new.background
    joined = {name: torch.cat([getattr(before, name), getattr(new, name)]) for name in Prototypes._fields[:-1]}
    return Prototypes(**joined, background=background)


def sample(prototypes: Prototypes, counts: Tensor, generator: torch.Generator) -> Tensor:
    """Features float [Σ counts, C] drawn from the classes' distributions, `counts` int64 [K] of each class, in order of class."""
    which = torch.repeat_interleave(torch.arange(len(counts)), counts)
    direction, noise = prototypes.direction.cpu()[which], prototypes.noise.cpu()[which]
    length = torch.randn(len(which), 1, generator=generator) * prototypes.norm_std.cpu()[which, None]
    drawn = direction + noise * torch.randn(direction.shape, generator=generator)
    return drawn * (prototypes.norm_mean.cpu()[which, None] + length)
