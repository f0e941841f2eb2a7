"""New images for a network that knows classes already: the classes of both, and the test images of both."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from eircli.common.errors import UserError
from eircli.common.suggest import did_you_mean
from eircli.common.types import IGNORE, DataSet, InstanceMap, KnowsInstances, Sample, Split, UInt8Array
from eircli.config.datasets import Extended


def class_names(config: Extended) -> tuple[str, ...]:
    """The classes that the network knows, then the new ones that are not among them."""
    return config.known + tuple(name for name in config.new if name not in config.known)


def extended(config: Extended, data: DataSet, before: Sequence[DataSet]) -> DataSet:
    """The new images to train on; to test on, those and the test images of the data sets before.

    Class ids are places in `class_names`; what a data set labels besides is background.

    Args:
        data: `config.data`, opened.
        before: `config.before`, opened.

    Raises:
        UserError: a new class that `data` does not label.
    """
    names = class_names(config)
    for name in config.new:
        if name not in data.classes:
            raise UserError(
                f"--classes: '{name}' is not a class of the new data; {did_you_mean(name, data.classes)}it has {', '.join(data.classes)}"
            )
    tests: list[Split] = [Relabelled(data.val, data.classes, names)]
    tests += [Relabelled(one.val, one.classes, names, f"before-{n}-") for n, one in enumerate(before, start=1)]
    return DataSet(names, Relabelled(data.train, data.classes, names), Joined(tests))


class Relabelled(Split):
    """A split whose labels are the ids that its classes have among other names; those that are not there become background.

    Args:
        own, names: the split's classes, and those that count.
        prefix: of the images' ids.
    """

    def __init__(self, split: Split, own: Sequence[str], names: Sequence[str], prefix: str = "") -> None:
        self.split, self.prefix = split, prefix
        self.table = np.zeros(256, np.uint8)
        self.table[IGNORE] = IGNORE
        for class_id, name in enumerate(own, start=1):
            self.table[class_id] = names.index(name) + 1 if name in names else 0

    def __len__(self) -> int:
        return len(self.split)

    @property
    def ids(self) -> list[str]:
        return [self.prefix + name for name in self.split.ids]

    def load(self, index: int, short_side: int | None = None) -> Sample:
        image, label = self.split.load(index, short_side)
        return Sample(image, self.table[label])

    def load_label(self, index: int) -> UInt8Array:
        label: UInt8Array = self.table[self.split.load_label(index)]
        return label

    def load_instances(self, index: int) -> InstanceMap:
        """The objects of an image, of a split that tells them apart (`KnowsInstances`)."""
        assert isinstance(self.split, KnowsInstances), "the manifest has asked its settings"
        numbers, labels = self.split.load_instances(index)
        return InstanceMap(numbers, self.table[labels])

    def present(self, index: int) -> list[int]:
        return sorted({int(self.table[class_id]) for class_id in self.split.present(index)})

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.split.fingerprint()} {self.table.tolist()}".encode()).hexdigest()

    def sample_fingerprint(self, index: int) -> str:
        return self.split.sample_fingerprint(index)


class Joined(Split):
    """Several splits, one after the other."""

    def __init__(self, splits: Sequence[Split]) -> None:
        self.splits = list(splits)
        self.ends = list(accumulate(len(split) for split in splits))

    def __len__(self) -> int:
        return self.ends[-1]

    def _find(self, index: int) -> tuple[Split, int]:
        which = next(number for number, end in enumerate(self.ends) if index < end)
        return self.splits[which], index - self.ends[which] + len(self.splits[which])

    @property
    def ids(self) -> list[str]:
        return [name for split in self.splits for name in split.ids]

    def load(self, index: int, short_side: int | None = None) -> Sample:
        split, place = self._find(index)
        return split.load(place, short_side)

    def load_label(self, index: int) -> UInt8Array:
        split, place = self._find(index)
        return split.load_label(place)

    def present(self, index: int) -> list[int]:
        split, place = self._find(index)
        return split.present(place)

    def fingerprint(self) -> str:
        return hashlib.sha256(" ".join(split.fingerprint() for split in self.splits).encode()).hexdigest()

    def sample_fingerprint(self, index: int) -> str:
        split, place = self._find(index)
        return split.sample_fingerprint(place)
