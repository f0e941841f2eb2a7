"""The instance bank: one immutable HDF5 file per step.

Layout (schema 1): `index`, a table with a row per instance (`INDEX`); `source`, its image's id; `pixels` and `masks`,
byte arrays into which the index points. Pixels are a JPEG or PNG, blank outside the mask; masks are packed to bits.
A checksum per instance covers both.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eircli.errors import UserError
from eircli.rundir import atomic_write
from eircli.types import Box, Instance

SCHEMA = 1

INDEX = np.dtype(
    [
        ("class_id", "u1"),
        ("step", "u2"),
        ("box", "u4", 4),
        ("source_size", "u4", 2),
        ("area", "u4"),
        ("offset", "u8"),
        ("length", "u4"),
        ("mask_offset", "u8"),
        ("mask_length", "u4"),
        ("checksum", "u4"),
    ]
)


class Bank:
    """A bank opened for reading. The file is opened on first use, again in every process that unpickles the bank.

    Raises:
        UserError: the file is missing, damaged, or of another schema.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: h5py.File | None = None
        self.index: NDArray[np.void] = self._read()["index"][:]

    def __len__(self) -> int:
        return len(self.index)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def load(self, position: int) -> Instance:
        """Decode one instance; its checksum is verified."""
        row, file = self.index[position], self._read()
        try:
            pixels = file["pixels"][int(row["offset"]) : int(row["offset"] + row["length"])].tobytes()
            packed = file["masks"][int(row["mask_offset"]) : int(row["mask_offset"] + row["mask_length"])]
            source = file["source"][position].decode()
        except (OSError, KeyError) as error:
            raise _damaged(self.path, error) from None
        if zlib.crc32(packed.tobytes(), zlib.crc32(pixels)) != row["checksum"]:
            raise _damaged(self.path, f"the checksum of instance {position} differs")
        box = Box(*(int(side) for side in row["box"]))
        shape = box.bottom - box.top, box.right - box.left
        mask = np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(bool)
        image = np.asarray(Image.open(io.BytesIO(pixels)).convert("RGB"))
        height, width = (int(side) for side in row["source_size"])
        return Instance(image, mask, int(row["class_id"]), source, box, (height, width), int(row["step"]))

    def per_class(self) -> dict[int, int]:
        """Instances of each class id that has any."""
        ids, counts = np.unique(self.index["class_id"], return_counts=True)
        return dict(zip(ids.tolist(), counts.tolist(), strict=True))

    def _read(self) -> h5py.File:
        if self._file is None:
            try:
                self._file = h5py.File(self.path, "r")
                schema = self._file.attrs.get("eir_bank_schema")
                if schema != SCHEMA or self._file["index"].dtype != INDEX:
                    raise UserError(
                        f"{self.path}: is no instance bank of schema {SCHEMA} (found {schema}); build it again with eir build-memory"
                    )
            except FileNotFoundError:
                raise UserError(f"{self.path}: missing; build it with eir build-memory") from None
            except (OSError, KeyError) as error:
                raise _damaged(self.path, error) from None
        return self._file


def write_bank(
    path: Path, instances: Iterable[Instance], encoding: Literal["jpeg", "png"], jpeg_quality: int, facts: dict[str, int | str]
) -> None:
    """Write a bank atomically; `facts` become attributes of the file."""
    rows, sources, pixels, masks = [], [], bytearray(), bytearray()
    for instance in instances:
        encoded = encode(instance, encoding, jpeg_quality)
        packed = np.packbits(instance.mask).tobytes()
        checksum = zlib.crc32(packed, zlib.crc32(encoded))
        where = (len(pixels), len(encoded), len(masks), len(packed))
        rows.append((instance.class_id, instance.step, instance.box, instance.source_size, instance.area, *where, checksum))
        sources.append(instance.source.encode())
        pixels += encoded
        masks += packed
    image = io.BytesIO()
    with h5py.File(image, "w", libver="latest") as file:
        file.attrs["eir_bank_schema"] = SCHEMA
        file.attrs.update(facts)
        file["index"] = np.array(rows, INDEX)
        file["source"] = np.array(sources, "S")
        file["pixels"] = np.frombuffer(bytes(pixels), np.uint8)
        file["masks"] = np.frombuffer(bytes(masks), np.uint8)
    with atomic_write(path) as target:
        target.write(image.getbuffer())


def encode(instance: Instance, encoding: Literal["jpeg", "png"], jpeg_quality: int) -> bytes:
    """The instance's pixels as a JPEG (no colour subsampling) or PNG file."""
    buffer = io.BytesIO()
    if encoding == "jpeg":
        # Subsampled colour would bleed the blank surroundings into the object's rim.
        Image.fromarray(instance.image).save(buffer, "JPEG", quality=jpeg_quality, subsampling=0)
    else:
        Image.fromarray(instance.image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _damaged(path: Path, reason: object) -> UserError:
    return UserError(f"{path}: damaged ({' '.join(str(reason).split())}); delete it and build it again with eir build-memory")
