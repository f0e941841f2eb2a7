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
    height, width = sample.label.shape
    factor = side / min(height, width)
    size = (max(side, round(width * factor)), max(side, round(height * factor)))
    if size == (width, height):
        return sample
    image = Image.fromarray(sample.image).resize(size, Image.Resampling.BILINEAR)
    label = Image.fromarray(sample.label).resize(size, Image.Resampling.NEAREST)
    return Sample(np.array(image), np.array(label))


def class_counts(presence: NDArray[np.bool_], positions: NDArray[np.intp], classes: Sequence[int]) -> dict[int, int]:
    """How many of the images at `positions` hold each of `classes`."""
    counts = presence[positions].sum(axis=0)
    return {class_id: int(counts[class_id]) for class_id in classes}
