"""Standalone replay: the bank's instances as training samples of their own (method §5.5)."""

from __future__ import annotations

import numpy as np

from eircli.memory.bank import Bank
from eircli.types import BACKGROUND, CANVAS, Sample, UInt8Array


class StandaloneInstances:
    """Every instance at its place on a blank canvas of its image's size, labelled inside its mask.

    Args:
        table: uint8 [256], class id → channel.
    """

    def __init__(self, bank: Bank, table: UInt8Array) -> None:
        self.bank, self.table = bank, table

    def __len__(self) -> int:
        return len(self.bank)

    def load(self, index: int) -> Sample:
        instance = self.bank.load(index)
        height, width = instance.source_size
        image = np.empty((height, width, 3), np.uint8)
        image[:] = CANVAS
        label = np.full((height, width), BACKGROUND, np.uint8)
        window = (slice(instance.box.top, instance.box.bottom), slice(instance.box.left, instance.box.right))
        image[window] = np.where(instance.mask[..., None], instance.image, CANVAS)
        label[window][instance.mask] = self.table[instance.class_id]
        return Sample(image, label)
