"""Figures of a confusion matrix (methods/README.md §7), in percent."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eircli.common.types import BACKGROUND, IGNORE

Confusion = NDArray[np.int64]
Absent = Literal["zero", "skip"]


def confusion_matrix(truth: Tensor, prediction: Tensor, channels: int) -> Tensor:
    """Pixel counts by true and predicted channel.

    Args:
        truth, prediction: uint8 maps of one shape; pixels with truth 255 are left out.

    Returns:
        int64 [K, K], rows truth.
    """
    valid = truth != IGNORE
    pairs = truth[valid].long() * channels + prediction[valid].long()
    return torch.bincount(pairs, minlength=channels**2).view(channels, channels)


def iou(confusion: Confusion, absent: Absent) -> list[float | None]:
    """IoU in percent of every channel of a confusion matrix [K, K]; a channel without a pixel is 0 ("zero") or None ("skip").

    Example:
        >>> iou(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), absent="skip")
        [75.0, 80.0, None]
    """
    hits = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    fallback = 0.0 if absent == "zero" else None
    return [100 * int(h) / int(u) if u else fallback for h, u in zip(hits, union, strict=True)]


def taken_by_background(confusion: Confusion, channels: list[int]) -> float | None:
    """Share in percent of the true pixels of `channels` predicted as background, of a confusion matrix [K, K]; None without any."""
    pixels = confusion[channels].sum()
    return 100 * float(confusion[channels, BACKGROUND].sum() / pixels) if pixels else None
