"""Medians of what is seen of each channel in a step's images, from histograms: one pass, little memory, the same in any number of processes."""

from __future__ import annotations

import torch
from torch import Tensor


def histogram(channel: Tensor, values: Tensor, channels: int, bins: int) -> Tensor:
    """Each channel's values, in 0..1, counted: int64 [channels, bins] on the CPU.

    Args:
        channel, values: [n] each, integers and floats.
    """
    place = channel.long() * bins + (values * bins).long().clamp(max=bins - 1)
    return torch.bincount(place, minlength=channels * bins).view(channels, bins).cpu()


def medians(counts: Tensor) -> Tensor:
    """Histograms int64 [K, bins] over 0..1 → the upper border of the bin that holds the median, float [K]; of none, of the first."""
    median = (2 * counts.cumsum(dim=1) >= counts.sum(dim=1, keepdim=True)).int().argmax(dim=1)
    return (median + 1) / counts.shape[1]
