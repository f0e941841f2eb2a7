"""Which classes each image of a split holds: read once from the label files, by worker processes, and cached."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eircli.common.io import atomic_write
from eircli.common.progress import track
from eircli.common.types import IGNORE, Split
from eircli.data.workers import for_each_image

ClassIndex = NDArray[np.bool_]

MIN_IMAGES_FOR_WORKERS = 600
"""Splits with fewer images are read in this process: starting workers would take longer."""


def default_cache() -> Path:
    """The folder of cached class indices: $EIR_CACHE, else the user's cache folder."""
    if folder := os.environ.get("EIR_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eir"


def read_class_index(split: Split, class_count: int, workers: int, cache: Path | None = None) -> ClassIndex:
    """bool [images, 1 + classes]: whether an image holds a pixel of each class id, 0 included.

    Every label file is read, and so checked, once; the result is cached under the files' fingerprint (names, sizes
    and times of change).

    Raises:
        UserError: naming the file that is missing, cut short, of another size than its image, or no mask of ids.
    """
    path = (cache or default_cache()) / f"classes-{split.fingerprint()[:32]}.npz"
    try:
        with np.load(path) as stored:
            return np.asarray(stored["index"], dtype=bool)
    except (FileNotFoundError, zipfile.BadZipFile, KeyError, EOFError, ValueError):
        pass  # not cached, or the cache is damaged: read the labels
    index = np.zeros((len(split), IGNORE + 1), bool)
    rows = for_each_image(split, _present, workers, MIN_IMAGES_FOR_WORKERS)
    for row, ids in enumerate(track(rows, "reading labels", len(split), "images")):
        index[row, ids] = True
    index = index[:, : class_count + 1]
    with atomic_write(path) as file:
        np.savez_compressed(file, index=index)
    return index


def _present(split: Split, position: int) -> list[int]:
    return split.present(position)
