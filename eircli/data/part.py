"""A part of a split: some of its images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from eircli.common.types import DataSet, InstanceMap, KnowsInstances, Sample, Split, UInt8Array


class Part(Split):
    """The images of a split at some positions; itself a `Split`."""

    def __init__(self, split: Split, positions: Sequence[int]) -> None:
        self.split, self.positions = split, list(positions)
        ids = split.ids
        self._ids = [ids[position] for position in self.positions]

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def ids(self) -> list[str]:
        return self._ids

    def load(self, index: int, short_side: int | None = None) -> Sample:
        return self.split.load(self.positions[index], short_side)

    def load_label(self, index: int) -> UInt8Array:
        return self.split.load_label(self.positions[index])

    def load_instances(self, index: int) -> InstanceMap:
        """The objects of an image, of a split that tells them apart (`KnowsInstances`)."""
        assert isinstance(self.split, KnowsInstances), "the manifest has asked its settings"
        return self.split.load_instances(self.positions[index])

    def present(self, index: int) -> list[int]:
        return self.split.present(self.positions[index])

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.split.fingerprint()} {self.positions}".encode()).hexdigest()

    def sample_fingerprint(self, index: int) -> str:
        return self.split.sample_fingerprint(self.positions[index])


def hold_out(data: DataSet, every: int) -> DataSet:
    """The data set with every `every`-th training image taken out, and these to test on instead of its test images."""
    held = held_out(len(data.train), every)
    rest = [position for position in range(len(data.train)) if position not in held]
    return data._replace(train=Part(data.train, rest), val=Part(data.train, held))


def held_out(count: int, every: int) -> range:
    """The positions, among `count` training images, of those that are held out."""
    return range(every - 1, count, every)
