"""Foveated instances: put together as pictures, for stand-alone replay; the object alone, for pasting."""

from __future__ import annotations

import numpy as np
from PIL import Image

from eircli.common.types import BACKGROUND, CANVAS, FoveatedInstance, Instance, Sample, UInt8Array
from eircli.memory.bank import Bank
from eircli.memory.encoded import decode_foveated


class FoveatedBank(Bank):
    """A bank of foveated instances; `load` gives the object alone."""

    def load(self, position: int) -> Instance:
        return object_alone(self.load_foveated(position))

    def load_foveated(self, position: int) -> FoveatedInstance:
        """Decode one foveated instance."""
        return decode_foveated(self.record(position))


class FoveatedSamples:
    """Each object in its scene, sharp near by, coarse elsewhere, of its image's size; labelled inside its mask alone.

    What surrounds the object is unknown rather than background: methods say what they make of background in replayed samples.

    Args:
        table: uint8 [256], class id → channel.
    """

    def __init__(self, bank: FoveatedBank, table: UInt8Array) -> None:
        self.bank, self.table = bank, table

    def __len__(self) -> int:
        return len(self.bank)

    def load(self, index: int) -> Sample:
        foveated = self.bank.load_foveated(index)
        label = np.full(foveated.source_size, BACKGROUND, np.uint8)
        label[foveated.box.window][foveated.mask] = self.table[foveated.class_id]
        return Sample(picture_of(foveated), label)


def picture_of(foveated: FoveatedInstance) -> UInt8Array:
    """uint8 [H, W, 3]: the thumbnail enlarged to its image's size, bilinear, and the view on top at its place."""
    height, width = foveated.source_size
    rows, columns = foveated.thumbnail.shape[:2]
    # To a multiple of the thumbnail's size, then cropped: each of its pixels lies where it was taken from.
    enlarged = (foveated.shrink * columns, foveated.shrink * rows)
    picture = np.array(Image.fromarray(foveated.thumbnail).resize(enlarged, Image.Resampling.BILINEAR))[:height, :width]
    picture[foveated.view.window] = foveated.image
    return picture


def object_alone(foveated: FoveatedInstance) -> Instance:
    """The object cut out, blank outside its mask."""
    (top, left, bottom, right), view = foveated.box, foveated.view
    crop = foveated.image[top - view.top : bottom - view.top, left - view.left : right - view.left]
    blank = np.where(foveated.mask[..., None], crop, np.array(CANVAS, np.uint8))
    where = (foveated.class_id, foveated.source, foveated.box, foveated.source_size, foveated.step)
    return Instance(blank, foveated.mask, *where)
