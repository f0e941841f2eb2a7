"""One step's view of a data set: some of its images, with only the labels visible at that step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from eircli.common.types import InstanceMap, KnowsInstances, Sample, Split, UInt8Array
from eircli.config.section import Cache
from eircli.data.resize import resize_label, resize_numbers
from eircli.data.sample_cache import decoded


class StepView:
    """A split's images at `positions`, labels mapped to channels by a 256-entry table.

    Args:
        short_side: `load` resizes to this short side, pixels; None keeps the images' own size.
        cache: where `load` keeps what it has decoded.
    """

    def __init__(
        self, split: Split, positions: NDArray[np.intp], table: UInt8Array, short_side: int | None = None, cache: Cache = "none"
    ) -> None:
        self.split, self.positions, self.table = split, positions, table
        self.short_side = short_side
        self.samples = decoded(split, short_side, cache)

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def ids(self) -> list[str]:
        """Names of the images."""
        ids = self.split.ids
        return [ids[position] for position in self.positions]

    def load_label(self, index: int) -> UInt8Array:
        """A sample's label alone: channels, uint8 [H, W] at the working size."""
        return self._visible(resize_label(self.split.load_label(int(self.positions[index])), self.short_side))

    def load_instances(self, index: int) -> InstanceMap:
        """A sample's objects at the working size, int32 [H, W], each with its channel: of a data set that tells them apart."""
        assert isinstance(self.split, KnowsInstances), "the manifest has asked its settings"
        numbers, labels = self.split.load_instances(int(self.positions[index]))
        return InstanceMap(resize_numbers(numbers, self.short_side), self.table[labels])

    def load_own_size(self, index: int) -> Sample:
        """A sample at its own size; the label holds channels."""
        image, label = self.split.load(int(self.positions[index]))
        return Sample(image, self._visible(label))

    def load(self, index: int) -> Sample:
        """A sample at the working size; the label holds channels."""
        image, label = self.samples.load(int(self.positions[index]))
        return Sample(image, self._visible(label))

    def _visible(self, label: UInt8Array) -> UInt8Array:
        """Class ids → channels. (Indexing the table by the label would first convert the label to int64.)"""
        channels = bytearray(np.ascontiguousarray(label)).translate(self.table.tobytes())
        return np.frombuffer(channels, np.uint8).reshape(label.shape)


def class_counts(presence: NDArray[np.bool_], positions: NDArray[np.intp], classes: Sequence[int]) -> dict[int, int]:
    """How many of the images at `positions` hold each of `classes`, of `presence` bool [images, 1 + classes]."""
    counts = presence[positions].sum(axis=0)
    return {class_id: int(counts[class_id]) for class_id in classes}
