"""Stand-alone replay: the exemplars of a bank as training samples."""

from __future__ import annotations

import numpy as np

from eircli.common.types import BACKGROUND, CANVAS, Sample, UInt8Array
from eircli.memory.bank import Bank


class BankSamples:
    """The exemplars of a bank as samples.

    Args:
        table: uint8 [256], class id → channel.
    """

    def __init__(self, bank: Bank, table: UInt8Array) -> None:
        self.bank, self.table = bank, table

    def __len__(self) -> int:
        return len(self.bank)


class StandaloneInstances(BankSamples):
    """Each instance on a blank canvas of its image's size, at its place, labelled inside its mask (methods/README.md §5.5)."""

    def load(self, index: int) -> Sample:
        instance = self.bank.load(index)
        height, width = instance.source_size
        image = np.empty((height, width, 3), np.uint8)
        image[:] = CANVAS
        label = np.full((height, width), BACKGROUND, np.uint8)
        window = instance.box.window
        image[window] = np.where(instance.mask[..., None], instance.image, CANVAS)
        label[window][instance.mask] = self.table[instance.class_id]
        return Sample(image, label)


class StoredImages(BankSamples):
    """Each stored image with the label it had when it was stored."""

    def load(self, index: int) -> Sample:
        stored = self.bank.load_image(index)
        return Sample(stored.image, self.table[stored.label])
