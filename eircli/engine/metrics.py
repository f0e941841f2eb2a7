"""Figures of a confusion matrix (method §7), in percent."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eircli.common.types import BACKGROUND, IGNORE

Confusion = NDArray[np.int64]
Absent = Literal["zero", "skip"]


def confusion_matrix(truth: Tensor, prediction: Tensor, channels: int) -> Tensor:
    """int64 [K, K], rows truth: pixel counts of two uint8 maps of one shape, pixels with truth 255 left out."""
    valid = truth != IGNORE
    pairs = truth[valid].long() * channels + prediction[valid].long()
    return torch.bincount(pairs, minlength=channels**2).view(channels, channels)


def iou(confusion: Confusion, absent: Absent) -> list[float | None]:
    """IoU of every channel; one without a pixel in truth or prediction is 0 or None."""
    hits = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    fallback = 0.0 if absent == "zero" else None
    return [100 * int(h) / int(u) if u else fallback for h, u in zip(hits, union, strict=True)]


class Summary(NamedTuple):
    """Mean IoUs. `new` and `harmonic` are None in the base step."""

    old: float | None
    """Over background and the base step's classes."""
    new: float | None
    """Over the classes learned later."""
    all: float | None
    harmonic: float | None


def summary(ious: list[float | None], base_count: int) -> Summary:
    """The figures the field reports, of the IoUs of background, `base_count` base classes, and later ones."""
    old, new = mean(ious[: 1 + base_count]), mean(ious[1 + base_count :])
    harmonic = None if old is None or new is None else 2 * old * new / (old + new) if old + new else 0.0
    return Summary(old, new, mean(ious), harmonic)


def mean(values: list[float | None]) -> float | None:
    """The mean of the values that are there; None of none."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def taken_by_background(confusion: Confusion, channels: list[int]) -> float | None:
    """Share of the true pixels of `channels` predicted as background; None without such pixels."""
    pixels = confusion[channels].sum()
    return 100 * float(confusion[channels, BACKGROUND].sum() / pixels) if pixels else None
