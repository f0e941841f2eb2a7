"""From labelled images to a balanced bank under a budget (method §4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from eircli.types import CANVAS, Box, Instance, SampleSource, UInt8Array

Selection = Literal["single-component", "component"]

EIGHT_CONNECTED = np.ones((3, 3), bool)


class Candidate(NamedTuple):
    """An instance that could be cut out of an image."""

    channel: int
    image: int
    """Position of the image in its source."""
    component: int
    """Number of the component of the class's pixels in that image, from 1."""


def candidates(label: UInt8Array, channels: Sequence[int], image: int, selection: Selection, min_area: int) -> list[Candidate]:
    """The instances of `channels` in a label map uint8 [H, W].

    single-component: a class's pixels when they form one 8-connected component; component: every component of at
    least `min_area` pixels.
    """
    found = []
    for channel in channels:
        components, count = ndimage.label(label == channel, EIGHT_CONNECTED)
        if selection == "single-component":
            numbers = [1] if count == 1 else []
        else:
            numbers = [int(n) for n in np.flatnonzero(np.bincount(components.ravel())[1:] >= min_area) + 1]
        found += [Candidate(channel, image, number) for number in numbers]
    return found


def cut_out(source: SampleSource, candidate: Candidate, class_id: int, name: str, step: int) -> Instance:
    """The instance a candidate stands for: its box's pixels, blank outside its mask."""
    image, label = source.load(candidate.image)
    components, _ = ndimage.label(label == candidate.channel, EIGHT_CONNECTED)
    mask: NDArray[np.bool_] = components == candidate.component
    rows, columns = ndimage.find_objects(mask.astype(np.uint8))[0]
    crop = image[rows, columns].copy()
    crop[~mask[rows, columns]] = CANVAS
    box = Box(rows.start, columns.start, rows.stop, columns.stop)
    return Instance(crop, mask[rows, columns], class_id, name, box, (label.shape[0], label.shape[1]), step)


def balanced_quota(supply: Mapping[int, int], budget: int) -> dict[int, int]:
    """How many instances each class gets: as even as the supply allows, `budget` in total or all there is.

    What the last round cannot share out evenly goes to the classes that come first in `supply`.
    """
    quota = dict.fromkeys(supply, 0)
    left = min(budget, sum(supply.values()))
    while left:
        open_classes = [c for c in supply if quota[c] < supply[c]]
        share = max(left // len(open_classes), 1)
        for c in open_classes[:left]:
            taken = min(share, supply[c] - quota[c])
            quota[c] += taken
            left -= taken
    return quota


def choose(pools: Mapping[int, Iterable[int]], budget: int, generator: np.random.Generator) -> dict[int, list[int]]:
    """A uniformly random choice from each class's pool, balanced over the classes under `budget`."""
    sizes = {c: list(pool) for c, pool in pools.items()}
    quota = balanced_quota({c: len(pool) for c, pool in sizes.items()}, budget)
    return {c: sorted(int(i) for i in generator.permutation(pool)[: quota[c]]) for c, pool in sizes.items()}
