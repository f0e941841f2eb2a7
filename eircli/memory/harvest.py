"""Candidates for the memory in labelled images, and cutting them out (methods/README.md §4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from eircli.common.types import Box, Colour, FoveatedInstance, Instance, InstanceMap, Sample, StoredImage, UInt8Array

Selection = Literal["single-component", "component"]
"""How objects are guessed from labels alone."""

EIGHT_CONNECTED = np.ones((3, 3), bool)

WHOLE_CLASS = 0
"""The component number that stands for all pixels of the class."""


class Candidate(NamedTuple):
    """A candidate for the memory: one component of a class in one image, or the image as a whole."""

    channel: int
    image: int
    """Position of the image in its source."""
    component: int
    """Number of the component of the class's pixels in that image, or of the annotated object, from 1; or `WHOLE_CLASS`, for the
    image as a whole."""
    area: int


class Origin(NamedTuple):
    """Where an exemplar comes from."""

    class_id: int
    source: str
    """The image's id."""
    step: int


def candidates(label: UInt8Array, channels: Sequence[int], image: int, selection: Selection, min_area: int) -> list[Candidate]:
    """The instances of `channels` in a label map uint8 [H, W].

    single-component: a class's pixels when they form one 8-connected component; component: every component of at
    least `min_area` pixels.
    """
    found = []
    for channel in channels:
        components, count = ndimage.label(label == channel, EIGHT_CONNECTED)
        areas = np.bincount(components.ravel(), minlength=2)
        if selection == "single-component":
            numbers = [1] if count == 1 else []
        else:
            numbers = [int(n) for n in np.flatnonzero(areas[1:] >= min_area) + 1]
        found += [Candidate(channel, image, number, int(areas[number])) for number in numbers]
    return found


def instance_candidates(instances: InstanceMap, channels: Sequence[int], image: int, min_area: int) -> list[Candidate]:
    """The annotated objects of `channels` of which at least `min_area` pixels are seen; numbers int32 [H, W]."""
    areas = np.bincount(instances.numbers.ravel(), minlength=len(instances.labels) + 1)
    return [
        Candidate(channel, image, int(number) + 1, int(areas[number + 1]))
        for channel in channels
        for number in np.flatnonzero(instances.labels == channel)
        if areas[number + 1] >= min_area
    ]


def image_candidates(label: UInt8Array, channels: Sequence[int], image: int) -> list[Candidate]:
    """A whole image, with its label map uint8 [H, W], as a candidate of each of `channels` that it holds."""
    areas = np.bincount(label.ravel(), minlength=256)
    return [Candidate(channel, image, WHOLE_CLASS, int(areas[channel])) for channel in channels if areas[channel]]


def candidate_mask(label: UInt8Array, candidate: Candidate, instances: InstanceMap | None = None) -> NDArray[np.bool_]:
    """bool [H, W]: the pixels of a candidate in its label map uint8 [H, W], or among its image's annotated objects."""
    if candidate.component == WHOLE_CLASS:
        return np.asarray(label == candidate.channel)
    if instances is not None:
        return np.asarray(instances.numbers == candidate.component)
    components, _ = ndimage.label(label == candidate.channel, EIGHT_CONNECTED)
    return np.asarray(components == candidate.component)


def cut_out(
    sample: Sample, candidate: Candidate, origin: Origin, canvas: Colour, instances: InstanceMap | None = None
) -> Instance:
    """Cut a candidate out of its image: the pixels of its bounding box, `canvas` outside its mask (`candidate_mask`)."""
    image, label = sample
    mask, box = _cropped(candidate_mask(label, candidate, instances))
    crop = image[box.window].copy()
    crop[~mask] = canvas
    return Instance(crop, mask, origin.class_id, origin.source, box, (label.shape[0], label.shape[1]), origin.step)


def cut_out_foveated(
    sample: Sample, candidate: Candidate, origin: Origin, ring: float, shrink: int, instances: InstanceMap | None = None
) -> FoveatedInstance:
    """Cut a candidate out of its image together with its surroundings (`candidate_mask`).

    Args:
        ring: how much is kept sharp on every side of its bounding box, as a fraction of the box's height or width.
        shrink: a pixel of the thumbnail is the mean of `shrink` x `shrink` of the image, or of what is left of it at the edges.
    """
    image, label = sample
    mask, box = _cropped(candidate_mask(label, candidate, instances))
    size = (label.shape[0], label.shape[1])
    view = widened(box, ring, size)
    thumbnail = np.asarray(Image.fromarray(image).reduce(shrink))
    return FoveatedInstance(
        image[view.window], view, thumbnail, shrink, mask, origin.class_id, origin.source, box, size, origin.step
    )


def widened(box: Box, ring: float, size: tuple[int, int]) -> Box:
    """A box with a ring around it, `ring` times its height or width, rounded; clipped to an image of `size`, height and width."""
    rows, columns = round(ring * (box.bottom - box.top)), round(ring * (box.right - box.left))
    bottom, right = min(size[0], box.bottom + rows), min(size[1], box.right + columns)
    return Box(max(0, box.top - rows), max(0, box.left - columns), bottom, right)


def _cropped(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Box]:
    """A mask bool [H, W] cropped to its bounding box, and that box."""
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    assert found is not None, "a candidate has a pixel"
    rows, columns = found
    return mask[found], Box(rows.start, columns.start, rows.stop, columns.stop)


def store_image(sample: Sample, origin: Origin, ids: UInt8Array) -> StoredImage:
    """A whole image with its label at this step, as class ids; `ids`, uint8 [256], maps channels to them."""
    return StoredImage(sample.image, ids[sample.label], *origin)
