"""Decoded samples of a split, kept in memory or in files so that they are decoded once."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np

from eircli.common.io import atomic_write
from eircli.common.types import Sample, Split
from eircli.config.section import Cache
from eircli.data.class_index import default_cache

SCHEMA = 2
"""Incremented whenever the same files would be decoded to other samples, or samples be stored otherwise."""

HEADER = np.dtype([("height", "<u4"), ("width", "<u4"), ("checksum", "<u4")])


class Samples(Protocol):
    """A split's samples by position, labels holding the split's class ids: the same for every step."""

    def load(self, position: int) -> Sample: ...


def decoded(split: Split, short_side: int | None, cache: Cache, folder: Path | None = None) -> Samples:
    """A split's samples at a short side, cached or not.

    Args:
        folder: of the samples kept on disk; a part of the cache folder if None.
    """
    match cache:
        case "none":
            return Decoded(split, short_side)
        case "ram":
            return InMemory(split, short_side)
        case "disk":
            return OnDisk(split, short_side, folder or default_cache() / "samples")


class Decoded:
    """Samples decoded at every access."""

    def __init__(self, split: Split, short_side: int | None) -> None:
        self.split, self.short_side = split, short_side

    def load(self, position: int) -> Sample:
        return self.split.load(position, self.short_side)


class InMemory(Decoded):
    """Samples held in the memory of each process that loads them."""

    def __init__(self, split: Split, short_side: int | None) -> None:
        super().__init__(split, short_side)
        self._held: dict[int, Sample] = {}

    def load(self, position: int) -> Sample:
        if position not in self._held:
            self._held[position] = super().load(position)
        return self._held[position]


class OnDisk(Decoded):
    """A file per sample: header, image, label, raw. Any number of processes and runs may read and write them concurrently.

    A file's name tells its sample's files by name, size and time of change, so a changed sample is decoded anew; a file that
    is cut short or damaged is written again.
    """

    def __init__(self, split: Split, short_side: int | None, folder: Path) -> None:
        super().__init__(split, short_side)
        self.folder = folder

    def path(self, position: int) -> Path:
        """The file that keeps a sample."""
        text = f"{SCHEMA}|{self.short_side}|{self.split.sample_fingerprint(position)}"
        name = hashlib.sha256(text.encode()).hexdigest()
        return self.folder / name[:2] / name[2:40]

    def load(self, position: int) -> Sample:
        path = self.path(position)
        sample = _read(path)
        if sample is None:
            sample = super().load(position)
            _write(path, sample)
        return sample


def _read(path: Path) -> Sample | None:
    """The sample in a file; None if there is none, or no whole one."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError:  # usually a cache miss
        return None
    header, pixels = content[: HEADER.itemsize], content[HEADER.itemsize :]
    if len(header) < HEADER.itemsize:
        return None
    height, width, checksum = (int(value) for value in header.view(HEADER)[0])
    if len(pixels) != 4 * height * width or zlib.crc32(pixels.data) != checksum:
        return None
    image, label = pixels[: 3 * height * width], pixels[3 * height * width :]
    return Sample(image.reshape(height, width, 3), label.reshape(height, width))


def _write(path: Path, sample: Sample) -> None:
    height, width = sample.label.shape
    pixels = np.concatenate([sample.image.ravel(), sample.label.ravel()])
    with atomic_write(path, durable=False) as file:
        file.write(np.array((height, width, zlib.crc32(pixels.data)), HEADER).tobytes())
        file.write(pixels.data)
