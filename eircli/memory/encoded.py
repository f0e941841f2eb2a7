"""An exemplar as bytes, and back.

Pixels are a picture file (`codecs`). An instance's are blank outside its mask, and its annotation is the mask packed to bits; a
whole image's annotation is a PNG of its label's class ids.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from eircli.common.types import Box, Exemplar, Instance, StoredImage
from eircli.memory.codecs import Encoding, decode_pixels, encode_pixels

INDEX = np.dtype(
    [
        ("class_id", "u1"),
        ("step", "u2"),
        ("box", "u4", 4),
        ("source_size", "u4", 2),
        ("area", "u4"),
        ("pixels_length", "u4"),
        ("annotation_length", "u4"),
        ("source_length", "u2"),
        ("offset", "u8"),
        ("checksum", "u4"),
    ]
)
"""What a bank's index says of an exemplar."""


class EncodedExemplar(NamedTuple):
    """An exemplar, encoded."""

    class_id: int
    step: int
    source: str
    box: tuple[int, ...]
    source_size: tuple[int, ...]
    area: int
    pixels: bytes
    annotation: bytes

    @property
    def content(self) -> bytes:
        """The exemplar's bytes in the bank's `content`: pixels, annotation, source id."""
        return self.pixels + self.annotation + self.source.encode()

    @property
    def size(self) -> int:
        """Bytes in the bank: content and one row of the index."""
        return len(self.content) + INDEX.itemsize


def encode(exemplar: Exemplar, encoding: Encoding, quality: int) -> EncodedExemplar:
    """An exemplar's pixels as a picture file (`encode_pixels`), its annotation packed."""
    pixels = encode_pixels(exemplar.image, encoding, quality)
    if isinstance(exemplar, Instance):
        box, size, annotation = tuple(exemplar.box), exemplar.source_size, np.packbits(exemplar.mask).tobytes()
    else:
        size = (exemplar.label.shape[0], exemplar.label.shape[1])
        box, labels = (0, 0, *size), io.BytesIO()
        Image.fromarray(exemplar.label).save(labels, "PNG", optimize=True)
        annotation = labels.getvalue()
    return EncodedExemplar(exemplar.class_id, exemplar.step, exemplar.source, box, size, exemplar.area, pixels, annotation)


def decode_instance(record: EncodedExemplar) -> Instance:
    """An instance out of its bytes."""
    box = Box(*record.box)
    shape = box.bottom - box.top, box.right - box.left
    packed = np.frombuffer(record.annotation, np.uint8)
    mask = np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(bool)
    height, width = record.source_size
    return Instance(decode_pixels(record.pixels), mask, record.class_id, record.source, box, (height, width), record.step)


def decode_image(record: EncodedExemplar) -> StoredImage:
    """A whole image out of its bytes."""
    label = np.asarray(Image.open(io.BytesIO(record.annotation)))
    return StoredImage(decode_pixels(record.pixels), label, record.class_id, record.source, record.step)
