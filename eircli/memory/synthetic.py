"""Synthetic banks of any size, for benchmarks and tests at scale."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from eircli.common.types import CANVAS, Box, Instance
from eircli.memory.bank import write_bank
from eircli.memory.codecs import Encoding
from eircli.memory.encoded import EncodedExemplar, encode


def synthetic_bank(path: Path, count: int, classes: int = 20, side: int = 24, encoding: Encoding = "jpeg", seed: int = 0) -> None:
    """Write a bank of `count` instances of `side` x `side` pixels, shared out among the class ids 1..`classes`.

    All instances of a class have the same pixels, so that a large bank is quickly written; each has its own source id.
    """
    write_bank(path, _records(count, classes, side, encoding, seed), {"kind": "instances", "rule": "synthetic", "step": 1})


def _records(count: int, classes: int, side: int, encoding: Encoding, seed: int) -> Iterator[EncodedExemplar]:
    generator = np.random.default_rng(seed)
    for class_id in range(1, classes + 1):
        mask = generator.random((side, side)) < 0.7
        image = np.where(mask[..., None], generator.integers(0, 256, (side, side, 3)), CANVAS).astype(np.uint8)
        instance = Instance(image, mask, class_id, "", Box(0, 0, side, side), (2 * side, 2 * side), 0)
        record = encode(instance, encoding, quality=95)
        for number in range(count * (class_id - 1) // classes, count * class_id // classes):
            yield record._replace(source=f"synthetic-{number}")
