"""Annotated objects, their regions as the formats have them, and the label map that they make together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eircli.common.errors import UserError
from eircli.common.types import InstanceMap, UInt8Array
from eircli.data.resize import Size

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]

FAR = 10
"""How many times its longer side a polygon may lie outside an image; what is farther is no slip but another unit."""


class Polygons(NamedTuple):
    """The union of some polygons."""

    parts: Sequence[Points]
    """Each float [corners, 2]: x and y in pixels, from the image's upper left corner; the first pixel's centre is at 0.5, 0.5."""


class RunLengths(NamedTuple):
    """COCO's RLE: lengths of runs outside and inside in turns, column by column."""

    counts: Sequence[int]
    size: Size


class Bitmap(NamedTuple):
    """A mask at a place in the image."""

    mask: Mask
    left: int
    top: int


Region = Polygons | RunLengths | Bitmap


class AnnotatedObject(NamedTuple):
    """One object of an image."""

    label: int
    """Its class id; 0 background, 255 ignore."""
    region: Region
    name: str
    """What names it in a message: its file and its number there."""
    lowest: bool = False
    """Whether it lies under all others, whatever its size."""


class Patch(NamedTuple):
    """A region's pixels: those of `mask`, in a window of the image."""

    mask: Mask
    window: tuple[slice, slice]


def require_outlines() -> None:
    """Check that polygons can be filled.

    Raises:
        UserError: pycocotools is not installed.
    """
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError:
        raise UserError("dataset.kind: polygons need pycocotools, which is not installed; pip install 'eircli[coco]'") from None


def paint(objects: Sequence[AnnotatedObject], size: Size) -> InstanceMap:
    """The objects of an image of `size`, smaller ones over larger ones; of equal ones the later is on top.

    Returns:
        int32 [H, W], and a label for each object. An object is there only where it is seen.

    Raises:
        UserError: a region that is no region of this image.
    """
    numbers = np.zeros(size[::-1], np.int32)
    patches = [fill(one, size) for one in objects]
    areas = [int(patch.mask.sum()) for patch in patches]
    for number in sorted(range(len(objects)), key=lambda k: (not objects[k].lowest, -areas[k])):
        mask, window = patches[number]
        numbers[window][mask] = number + 1
    return InstanceMap(numbers, np.array([one.label for one in objects], np.uint8))


def label_map(instances: InstanceMap) -> UInt8Array:
    """The label uint8 [H, W] that the objects make."""
    return np.concatenate([np.zeros(1, np.uint8), instances.labels])[instances.numbers]


def fill(one: AnnotatedObject, size: Size) -> Patch:
    """The pixels of an object in an image of `size`; what lies outside is cut off.

    Raises:
        UserError: a polygon of fewer than three corners, or far from the image; an RLE of another size or length.
    """
    match one.region:
        case Polygons():
            return _fill_polygons(one, one.region, size)
        case RunLengths():
            return _fill_runs(one, one.region, size)
        case Bitmap(mask, left, top):
            return _clipped(mask, left, top, size)


def _fill_polygons(one: AnnotatedObject, region: Polygons, size: Size) -> Patch:
    """By pycocotools, which keeps fractions of pixels; Pillow's polygons begin at whole ones and contain their rim, and so are larger."""
    for part in region.parts:
        if len(part) < 3:
            raise UserError(f"{one.name}: a polygon of {len(part)} points; it needs 3 or more: delete it, or draw it again")
        if not (abs(part) < (1 + FAR) * max(size)).all():
            raise UserError(
                f"{one.name}: a polygon far outside the {_text(size)} image; its coordinates must be in this image's pixels"
            )
    from pycocotools import mask as coco_mask

    corners = np.concatenate(region.parts)
    left, top = (int(low) for low in np.clip(np.floor(corners.min(axis=0)), 0, size))
    right, bottom = (int(high) for high in np.clip(np.ceil(corners.max(axis=0)), 0, size))
    if right <= left or bottom <= top:
        return _clipped(np.zeros((0, 0), bool), 0, 0, size)
    # frPyObjects takes a list of four numbers for a box, so three corners or more are needed here too.
    flat = [(part - (left, top)).ravel().tolist() for part in region.parts]
    merged = coco_mask.merge(coco_mask.frPyObjects(flat, bottom - top, right - left))
    # Its own decode() is deprecated from NumPy 2 on.
    mask = _from_runs(run_lengths(merged["counts"].decode()), (right - left, bottom - top))
    return Patch(mask, (slice(top, bottom), slice(left, right)))


def _fill_runs(one: AnnotatedObject, region: RunLengths, size: Size) -> Patch:
    """(pycocotools decodes runs that end too early into whatever lies in memory.)"""
    if region.size != size:
        raise UserError(
            f"{one.name}: an RLE of {_text(region.size)} pixels in an image of {_text(size)}; export the annotations again"
        )
    if min(region.counts, default=0) < 0 or sum(region.counts) != size[0] * size[1]:
        raise UserError(f"{one.name}: an RLE whose runs are not as long as the {_text(size)} image; export the annotations again")
    mask = _from_runs(region.counts, size)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return _clipped(np.zeros((0, 0), bool), 0, 0, size)
    window = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    return Patch(mask[window].copy(), window)


def _from_runs(counts: Sequence[int], size: Size) -> Mask:
    """bool [H, W] of runs outside and inside in turns, column by column."""
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size).T


def _clipped(mask: Mask, left: int, top: int, size: Size) -> Patch:
    """A mask at a place, as far as it lies in the image."""
    mask = mask[max(0, -top) : max(0, size[1] - top), max(0, -left) : max(0, size[0] - left)]
    top, left = max(0, top), max(0, left)
    return Patch(mask, (slice(top, top + mask.shape[0]), slice(left, left + mask.shape[1])))


def run_lengths(text: str) -> list[int]:
    """The lengths of runs in COCO's compressed RLE: five bits a character, from 48 on, the sixth saying that more follow; from the
    fourth number on, differences from the number two before.

    Raises:
        ValueError: other characters, or a number that does not end.

    Example:
        >>> run_lengths("52203")
        [5, 2, 2, 2, 5]
    """
    counts: list[int] = []
    number = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"{character!r} is no part of a compressed RLE")
        number |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = shift = 0
    if shift:
        raise ValueError("it ends within a number")
    return counts


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
