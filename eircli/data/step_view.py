"""One step's view of a data set: some of its images, with only the labels visible at that step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eircli.types import Sample, Split, UInt8Array


class StepView:
    """A split's images at `positions`, labels mapped to channels by a 256-entry table.

    Args:
        short_side: `load` resizes to this short side, pixels; None keeps the images' own size.
        keep: hold loaded samples in memory.
    """

    def __init__(
        self, split: Split, positions: NDArray[np.intp], table: UInt8Array, short_side: int | None = None, keep: bool = False
    ) -> None:
        self.split, self.positions, self.table = split, positions, table
        self.short_side = short_side
        self._kept: dict[int, Sample] | None = {} if keep else None

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def ids(self) -> list[str]:
        """Names of the images."""
        return [self.split.ids[position] for position in self.positions]

    def load_label(self, index: int) -> UInt8Array:
        """A sample's label alone, channels at the working size."""
        label = self.table[self.split.load_label(int(self.positions[index]))]
        return label if self.short_side is None else _resize(label, self.short_side, Image.Resampling.NEAREST)

    def load_own_size(self, index: int) -> Sample:
        """A sample at its own size; the label holds channels."""
        image, label = self.split.load(int(self.positions[index]))
        return Sample(image, self.table[label])

    def load(self, index: int) -> Sample:
        """A sample at the working size; the label holds channels."""
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        sample = self.load_own_size(index)
        if self.short_side is not None:
            sample = resize_short_side(sample, self.short_side)
        if self._kept is not None:
            self._kept[index] = sample
        return sample


def resize_short_side(sample: Sample, side: int) -> Sample:
    """Resize so that the short side is `side` pixels: the image bilinear with antialiasing, the label nearest."""
    return Sample(_resize(sample.image, side, Image.Resampling.BILINEAR), _resize(sample.label, side, Image.Resampling.NEAREST))


def _resize(pixels: UInt8Array, side: int, how: Image.Resampling) -> UInt8Array:
    height, width = pixels.shape[:2]
    factor = side / min(height, width)
    size = (max(side, round(width * factor)), max(side, round(height * factor)))
    return pixels if size == (width, height) else np.array(Image.fromarray(pixels).resize(size, how))


def class_counts(presence: NDArray[np.bool_], positions: NDArray[np.intp], classes: Sequence[int]) -> dict[int, int]:
    """How many of the images at `positions` hold each of `classes`."""
    counts = presence[positions].sum(axis=0)
    return {class_id: int(counts[class_id]) for class_id in classes}
