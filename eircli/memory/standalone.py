"""Stand-alone replay: the exemplars of a bank as training samples."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from eircli.common.types import BACKGROUND, Colour, InstanceMap, Sample, SampleSource, UInt8Array
from eircli.memory.bank import Bank

CLASS_IDS: UInt8Array = np.arange(256, dtype=np.uint8)
"""The table of samples whose labels are to hold class ids."""


class LabelledImages(SampleSource, Protocol):
    """A step's training images, labels holding channels."""

    @property
    def ids(self) -> list[str]:
        """The names of the images."""
        ...

    def load_label(self, index: int) -> UInt8Array:
        """A label alone, uint8 [H, W]."""
        ...


class AnnotatedImages(LabelledImages, Protocol):
    """The same with their objects, where the data set tells these apart."""

    def load_instances(self, index: int) -> InstanceMap:
        """The annotated objects of an image, int32 [H, W], with their channels."""
        ...


class BankSamples:
    """The exemplars of a bank as samples.

    Args:
        table: uint8 [256], class id → channel.
    """

    def __init__(self, bank: Bank, table: UInt8Array) -> None:
        self.bank, self.table = bank, table

    def __len__(self) -> int:
        return len(self.bank)


class CutOuts(BankSamples):
    """Each instance as it is stored, in its box, labelled inside its mask."""

    def load(self, index: int) -> Sample:
        instance = self.bank.load(index)
        return Sample(instance.image, np.where(instance.mask, self.table[instance.class_id], np.uint8(BACKGROUND)))


class StandaloneInstances(BankSamples):
    """Each instance on a blank canvas of its image's size, at its place, labelled inside its mask (methods/README.md §5.5).

    Args:
        canvas: what is blank to the backbone.
    """

    def __init__(self, bank: Bank, table: UInt8Array, canvas: Colour) -> None:
        super().__init__(bank, table)
        self.canvas = canvas

    def load(self, index: int) -> Sample:
        instance = self.bank.load(index)
        height, width = instance.source_size
        image = np.empty((height, width, 3), np.uint8)
        image[:] = self.canvas
        label = np.full((height, width), BACKGROUND, np.uint8)
        window = instance.box.window
        image[window] = np.where(instance.mask[..., None], instance.image, self.canvas)
        label[window][instance.mask] = self.table[instance.class_id]
        return Sample(image, label)


class StoredImages(BankSamples):
    """Each stored image with the label it had when it was stored.

    Args:
        current: a step's images, at the size at which those in the bank were stored. A stored one that is among them also shows
            the classes labelled there, on its background.
    """

    def __init__(self, bank: Bank, table: UInt8Array, current: LabelledImages | None = None) -> None:
        super().__init__(bank, table)
        self.current = current
        self.places = {} if current is None else {name: place for place, name in enumerate(current.ids)}

    def load(self, index: int) -> Sample:
        stored = self.bank.load_image(index)
        label = self.table[stored.label]
        if self.current is not None and stored.source in self.places:
            label = np.where(label == BACKGROUND, self.current.load_label(self.places[stored.source]), label)
        return Sample(stored.image, label)
