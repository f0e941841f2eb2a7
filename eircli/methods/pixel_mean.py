"""Means over pixels, of a whole batch or of a part of it."""

from __future__ import annotations

import torch
from torch import Tensor


class PixelMean:
    """The mean over some pixels of a batch.

    For a micro-batch or a process's share, sums are divided by the *average* number of pixels of a part: then the mean of the
    parts' results is the mean over the whole batch, however unevenly its valid pixels are distributed over the parts.

    Args:
        valid: bool [N, H, W], the pixels that enter.
        count: float [], what sums are divided by (`Batch.pixel_count`); the number of valid pixels if None.

    Example:
        >>> mean = PixelMean(torch.tensor([[[True, True, False]]]))
        >>> mean(torch.tensor([[[1.0, 3.0, 100.0]]]))
        tensor(2.)
    """

    def __init__(self, valid: Tensor, count: Tensor | None = None) -> None:
        self.valid = valid
        self.count = (valid.sum() if count is None else count).clamp(min=1)

    def __call__(self, per_pixel: Tensor) -> Tensor:
        """[N, H, W] → its mean, []; 0 without a valid pixel."""
        return self.of_sum(torch.where(self.valid, per_pixel, 0).sum())

    def of_sum(self, total: Tensor) -> Tensor:
        """The mean of what has been summed over the valid pixels already, [] → []."""
        return total / self.count
