"""The bank of exemplars, encoded: one immutable HDF5 file per step.

Layout (schema 4): `content`, a byte array of the exemplars end to end, grouped by class: pixels, annotation, image's id in
UTF-8 (`encoded`); `index`, a table with a row per exemplar (`INDEX`) that points into it; `classes`, a row per class
(`CLASSES`) that points into the index. A checksum per exemplar covers its content and what its row says of it. The
attributes say what the bank holds (`kind`), and which rule and budget made it.

Opening reads the attributes and `classes`; an exemplar, such as a random one of a class, is one row and one slice. So both
cost the same for any number of exemplars.
"""

from __future__ import annotations

import shutil
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from eircli.common.errors import UserError
from eircli.common.io import atomic_write
from eircli.common.types import Instance, StoredImage
from eircli.memory.encoded import INDEX, EncodedExemplar, decode_image, decode_instance

SCHEMA = 4

CLASSES = np.dtype([("class_id", "u1"), ("first", "u8"), ("count", "u8")])

LAYOUT_ROOM = 1 << 16
"""Bytes written before HDF5 lays out a bank, to find a full disk early; HDF5 needs fewer."""


class Bank:
    """A bank opened for reading. The file is opened on first use, again in every process that unpickles the bank.

    Attributes:
        classes: class id → the positions of its exemplars.
        facts: the file's attributes.

    Raises:
        UserError: the file is missing, damaged, or of another schema.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parts: dict[str, h5py.Dataset] = {}
        rows = self._slice("classes", slice(None))
        try:
            self.facts: dict[str, Any] = dict(self._part("classes").file.attrs)
        except OSError as error:
            raise _damaged(path, error) from None
        self.classes = {class_id: range(first, first + count) for class_id, first, count in rows.tolist()}
        ends = np.cumsum(rows["count"])
        if rows["count"].sum() != len(self._part("index")) or (rows["first"] != ends - rows["count"]).any():
            raise _damaged(path, "the classes do not cover the index")

    def __len__(self) -> int:
        return sum(len(positions) for positions in self.classes.values())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "index"} | {"_parts": {}}

    @cached_property
    def index(self) -> NDArray[np.void]:
        """The whole table, `INDEX` [exemplars]."""
        index: NDArray[np.void] = self._slice("index", slice(None))
        return index

    @property
    def size(self) -> int:
        """Bytes of all exemplars (`EncodedExemplar.size`), as a budget counts them."""
        return int(self._part("content").size) + len(self) * INDEX.itemsize

    def record(self, position: int) -> EncodedExemplar:
        """One exemplar as it is stored; its checksum is verified."""
        row = self._slice("index", position)
        start, *lengths = (int(row[name]) for name in ("offset", "pixels_length", "annotation_length", "source_length"))
        content = self._slice("content", slice(start, start + sum(lengths))).tobytes()
        if _checksum(row, content) != row["checksum"]:
            raise _damaged(self.path, f"the checksum of exemplar {position} differs")
        box, size = (tuple(row[name].tolist()) for name in ("box", "source_size"))
        after_pixels, after_annotation = lengths[0], lengths[0] + lengths[1]
        pixels, annotation = content[:after_pixels], content[after_pixels:after_annotation]
        source = content[after_annotation:].decode()
        return EncodedExemplar(int(row["class_id"]), int(row["step"]), source, box, size, int(row["area"]), pixels, annotation)

    def draw(self, class_id: int, generator: np.random.Generator) -> Instance:
        """A uniformly random instance of a class that has any."""
        positions = self.classes[class_id]
        return self.load(positions[generator.integers(len(positions))])

    def load(self, position: int) -> Instance:
        """Decode one instance."""
        return decode_instance(self.record(position))

    def load_image(self, position: int) -> StoredImage:
        """Decode one whole image."""
        return decode_image(self.record(position))

    def per_class(self) -> dict[int, int]:
        """Exemplars of each class id that has any."""
        return {class_id: len(positions) for class_id, positions in self.classes.items()}

    def _slice(self, name: str, where: int | slice) -> Any:
        try:
            return self._part(name)[where]
        except OSError as error:
            raise _damaged(self.path, error) from None

    def _part(self, name: str) -> h5py.Dataset:
        """An HDF5 dataset of the file; kept open, since opening one takes longer than reading a row."""
        if not self._parts:
            try:
                file = h5py.File(self.path, "r")
                schema = file.attrs.get("eir_bank_schema")
                if schema != SCHEMA or file["index"].dtype != INDEX:
                    raise UserError(
                        f"{self.path}: is no bank of schema {SCHEMA} (found {schema}); build it again with eir build-memory --again"
                    )
                self._parts = {part: file[part] for part in ("classes", "index", "content")}
            except FileNotFoundError:
                raise UserError(f"{self.path}: missing; build it with eir build-memory") from None
            except (OSError, KeyError) as error:
                raise _damaged(self.path, error) from None
        return self._parts[name]


def write_bank(path: Path, records: Iterable[EncodedExemplar], facts: Mapping[str, int | str]) -> None:
    """Write a bank atomically, holding one record at a time; `facts` become attributes of the file.

    Args:
        records: at least one, grouped by class.
    """
    # HDF5 needs the sizes, which are known at the end only, and fails badly on a full disk. So records are spooled to temporary
    # files, HDF5 lays out a file of the right sizes, and the spooled bytes are copied to where its datasets lie.
    counts: dict[int, int] = {}
    with atomic_write(path) as target, _spool(path) as index, _spool(path) as content:
        for record in records:
            assert record.class_id not in counts or record.class_id == next(reversed(counts)), "records are grouped by class"
            counts[record.class_id] = counts.get(record.class_id, 0) + 1
            stored, name = record.content, record.source.encode()
            where = (len(record.pixels), len(record.annotation), len(name), content.tell(), 0)
            row = np.array((record.class_id, record.step, record.box, record.source_size, record.area, *where), INDEX)
            row["checksum"] = _checksum(row, stored)
            index.write(row.tobytes())
            content.write(stored)
        assert counts, "a bank holds something"
        first = np.cumsum([0, *counts.values()]).tolist()
        target.write(bytes(LAYOUT_ROOM))
        target.flush()
        with h5py.File(target.name, "w", libver="v110") as file:
            file.attrs["eir_bank_schema"] = SCHEMA
            file.attrs.update(facts)
            file["classes"] = np.array(list(zip(counts, first, counts.values(), strict=False)), CLASSES)
            index_at = _lay_out(file, "index", INDEX, first[-1])
            content_at = _lay_out(file, "content", np.dtype("u1"), content.tell())
        for part, at in ((index, index_at), (content, content_at)):
            part.seek(0)
            target.seek(at)
            shutil.copyfileobj(part, target)


def _checksum(row: np.void | NDArray[np.void], content: bytes) -> int:
    where = np.dtype(
        [("offset", "u8"), ("checksum", "u4")]
    ).itemsize  # not covered: the last two columns, which differ from bank to bank
    return zlib.crc32(content, zlib.crc32(row.tobytes()[:-where]))


def _spool(path: Path) -> IO[bytes]:
    """An anonymous temporary file on the same disk."""
    return tempfile.TemporaryFile(dir=path.parent)


def _lay_out(file: h5py.File, name: str, dtype: np.dtype[Any], count: int) -> int:
    """Allocate an HDF5 dataset of `count` items; returns its byte offset in the file."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return int(file.create_dataset(name, (count,), dtype, dcpl=properties).id.get_offset())


def _damaged(path: Path, reason: object) -> UserError:
    return UserError(f"{path}: damaged ({' '.join(str(reason).split())}); delete it and build it again with eir build-memory")
