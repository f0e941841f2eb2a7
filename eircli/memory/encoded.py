"""An exemplar as bytes, and back.

Pixels are a picture file (`codecs`). The annotation is

- of an instance, whose pixels are blank outside its mask: the mask, its rows packed to bits, deflated;
- of a whole image: a PNG of its label's class ids;
- of a foveated instance, whose pixels are those of its view: `SURROUNDINGS`; the mask, likewise; the thumbnail, a picture file like
  the pixels.
"""

from __future__ import annotations

import io
import math
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eircli.common.types import Box, Exemplar, FoveatedInstance, Instance, StoredImage
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

SURROUNDINGS = np.dtype([("view", "u4", 4), ("shrink", "u2"), ("mask_length", "u4")])
"""How the annotation of a foveated instance begins."""


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
        box, size, annotation = tuple(exemplar.box), exemplar.source_size, _deflated(exemplar.mask)
    elif isinstance(exemplar, FoveatedInstance):
        mask = _deflated(exemplar.mask)
        head = np.array((exemplar.view, exemplar.shrink, len(mask)), SURROUNDINGS).tobytes()
        thumbnail = encode_pixels(exemplar.thumbnail, encoding, quality)
        box, size, annotation = tuple(exemplar.box), exemplar.source_size, head + mask + thumbnail
    else:
        size = (exemplar.label.shape[0], exemplar.label.shape[1])
        box, labels = (0, 0, *size), io.BytesIO()
        Image.fromarray(exemplar.label).save(labels, "PNG", optimize=True)
        annotation = labels.getvalue()
    return EncodedExemplar(exemplar.class_id, exemplar.step, exemplar.source, box, size, exemplar.area, pixels, annotation)


def decode_instance(record: EncodedExemplar) -> Instance:
    """An instance out of its bytes."""
    box = Box(*record.box)
    mask = _inflated(record.annotation, box)
    height, width = record.source_size
    return Instance(decode_pixels(record.pixels), mask, record.class_id, record.source, box, (height, width), record.step)


def decode_image(record: EncodedExemplar) -> StoredImage:
    """A whole image out of its bytes."""
    label = np.asarray(Image.open(io.BytesIO(record.annotation)))
    return StoredImage(decode_pixels(record.pixels), label, record.class_id, record.source, record.step)


def decode_foveated(record: EncodedExemplar) -> FoveatedInstance:
    """A foveated instance out of its bytes."""
    box, (height, width), start = Box(*record.box), record.source_size, SURROUNDINGS.itemsize
    head = np.frombuffer(record.annotation, SURROUNDINGS, count=1)[0]
    end = start + int(head["mask_length"])
    return FoveatedInstance(
        image=decode_pixels(record.pixels),
        view=Box(*head["view"].tolist()),
        thumbnail=decode_pixels(record.annotation[end:]),
        shrink=int(head["shrink"]),
        mask=_inflated(record.annotation[start:end], box),
        class_id=record.class_id,
        source=record.source,
        box=box,
        source_size=(height, width),
        step=record.step,
    )


def _deflated(mask: NDArray[np.bool_]) -> bytes:
    """A mask [h, w] with its rows packed to bits, deflated."""
    return zlib.compress(np.packbits(mask, axis=1).tobytes(), level=9)


def _inflated(content: bytes, box: Box) -> NDArray[np.bool_]:
    """The mask of a box, bool [h, w]; never more than it can hold is inflated."""
    height, width = box.bottom - box.top, box.right - box.left
    packed = zlib.decompressobj().decompress(content, height * math.ceil(width / 8))
    rows = np.frombuffer(packed, np.uint8).reshape(height, -1)
    return np.unpackbits(rows, axis=1, count=width).astype(bool)
