"""The bank of exemplars, cut-out instances or whole images: one immutable HDF5 file per step.

Layout (schema 2): `index`, a table with a row per exemplar (`INDEX`); `source`, its image's id; `pixels` and
`annotations`, byte arrays into which the index points. Pixels are a JPEG or PNG. An instance's are blank outside its mask,
and its annotation is the mask packed to bits; a whole image's annotation is a PNG of its label's class ids. A checksum per
exemplar covers both. The attributes say what the bank holds (`kind`), and which rule and budget made it.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eircli.errors import UserError
from eircli.rundir import atomic_write
from eircli.types import Box, Exemplar, Instance, StoredImage, UInt8Array

SCHEMA = 2

INDEX = np.dtype(
    [
        ("class_id", "u1"),
        ("step", "u2"),
        ("box", "u4", 4),
        ("source_size", "u4", 2),
        ("area", "u4"),
        ("offset", "u8"),
        ("length", "u4"),
        ("annotation_offset", "u8"),
        ("annotation_length", "u4"),
        ("checksum", "u4"),
    ]
)

Kind = Literal["instances", "images"]
Encoding = Literal["jpeg", "png"]


class Record(NamedTuple):
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
    def size(self) -> int:
        """The bytes that it costs a bank: pixels, annotation, name, and row of the index."""
        return len(self.pixels) + len(self.annotation) + len(self.source.encode()) + INDEX.itemsize

    @property
    def checksum(self) -> int:
        return zlib.crc32(self.annotation, zlib.crc32(self.pixels))


class Bank:
    """A bank opened for reading. The file is opened on first use, again in every process that unpickles the bank.

    Raises:
        UserError: the file is missing, damaged, or of another schema.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: h5py.File | None = None
        self.index: NDArray[np.void] = self._read()["index"][:]
        self.facts: dict[str, Any] = dict(self._read().attrs)

    def __len__(self) -> int:
        return len(self.index)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def record(self, position: int) -> Record:
        """One exemplar as it is stored; its checksum is verified."""
        row, file = self.index[position], self._read()
        try:
            parts = [_slice(file, "pixels", row["offset"], row["length"])]
            parts.append(_slice(file, "annotations", row["annotation_offset"], row["annotation_length"]))
            source = file["source"][position].decode()
        except (OSError, KeyError) as error:
            raise _damaged(self.path, error) from None
        box, size = (tuple(int(side) for side in row[name]) for name in ("box", "source_size"))
        record = Record(int(row["class_id"]), int(row["step"]), source, box, size, int(row["area"]), *parts)
        if record.checksum != row["checksum"]:
            raise _damaged(self.path, f"the checksum of exemplar {position} differs")
        return record

    def load(self, position: int) -> Instance:
        """Decode one instance."""
        record = self.record(position)
        box = Box(*record.box)
        shape = box.bottom - box.top, box.right - box.left
        packed = np.frombuffer(record.annotation, np.uint8)
        mask = np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(bool)
        height, width = record.source_size
        return Instance(_decoded(record.pixels), mask, record.class_id, record.source, box, (height, width), record.step)

    def load_image(self, position: int) -> StoredImage:
        """Decode one whole image."""
        record = self.record(position)
        label = np.asarray(Image.open(io.BytesIO(record.annotation)))
        return StoredImage(_decoded(record.pixels), label, record.class_id, record.source, record.step)

    def per_class(self) -> dict[int, int]:
        """Exemplars of each class id that has any."""
        ids, counts = np.unique(self.index["class_id"], return_counts=True)
        return dict(zip(ids.tolist(), counts.tolist(), strict=True))

    def _read(self) -> h5py.File:
        if self._file is None:
            try:
                self._file = h5py.File(self.path, "r")
                schema = self._file.attrs.get("eir_bank_schema")
                if schema != SCHEMA or self._file["index"].dtype != INDEX:
                    raise UserError(
                        f"{self.path}: is no bank of schema {SCHEMA} (found {schema}); build it again with eir build-memory"
                    )
            except FileNotFoundError:
                raise UserError(f"{self.path}: missing; build it with eir build-memory") from None
            except (OSError, KeyError) as error:
                raise _damaged(self.path, error) from None
        return self._file


def write_bank(path: Path, records: Sequence[Record], facts: dict[str, int | str]) -> None:
    """Write a bank atomically; `facts` become attributes of the file."""
    rows, pixels, annotations = [], bytearray(), bytearray()
    for record in records:
        where = (len(pixels), len(record.pixels), len(annotations), len(record.annotation))
        rows.append((record.class_id, record.step, record.box, record.source_size, record.area, *where, record.checksum))
        pixels += record.pixels
        annotations += record.annotation
    image = io.BytesIO()
    with h5py.File(image, "w", libver="latest") as file:
        file.attrs["eir_bank_schema"] = SCHEMA
        file.attrs.update(facts)
        file["index"] = np.array(rows, INDEX)
        file["source"] = np.array([record.source.encode() for record in records], "S")
        file["pixels"] = np.frombuffer(bytes(pixels), np.uint8)
        file["annotations"] = np.frombuffer(bytes(annotations), np.uint8)
    with atomic_write(path) as target:
        target.write(image.getbuffer())


def encode(exemplar: Exemplar, encoding: Encoding, jpeg_quality: int) -> Record:
    """An exemplar's pixels as a JPEG (no colour subsampling) or PNG file, its annotation packed."""
    buffer = io.BytesIO()
    if encoding == "jpeg":
        # Subsampled colour would bleed an instance's blank surroundings into the object's rim.
        Image.fromarray(exemplar.image).save(buffer, "JPEG", quality=jpeg_quality, subsampling=0)
    else:
        Image.fromarray(exemplar.image).save(buffer, "PNG", optimize=True)
    if isinstance(exemplar, Instance):
        box, size, annotation = tuple(exemplar.box), exemplar.source_size, np.packbits(exemplar.mask).tobytes()
    else:
        size = (exemplar.label.shape[0], exemplar.label.shape[1])
        box, labels = (0, 0, *size), io.BytesIO()
        Image.fromarray(exemplar.label).save(labels, "PNG", optimize=True)
        annotation = labels.getvalue()
    return Record(
        exemplar.class_id, exemplar.step, exemplar.source, box, size, exemplar.area, buffer.getvalue(), annotation
    )  # fmt: skip


def _slice(file: h5py.File, name: str, offset: np.uint64, length: np.uint32) -> bytes:
    start = int(offset)
    return bytes(file[name][start : start + int(length)])


def _decoded(pixels: bytes) -> UInt8Array:
    return np.array(Image.open(io.BytesIO(pixels)).convert("RGB"))


def _damaged(path: Path, reason: object) -> UserError:
    return UserError(f"{path}: damaged ({' '.join(str(reason).split())}); delete it and build it again with eir build-memory")
