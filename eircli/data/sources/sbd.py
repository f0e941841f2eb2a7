"""VOC's augmented training set: the labels of the Semantic Boundaries Dataset beside VOC's own."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from eircli.common.errors import UserError
from eircli.common.progress import track
from eircli.common.types import UInt8Array
from eircli.data.files import read_lines
from eircli.data.sources.unpack import below, damage_named, read_members
from eircli.data.voc import CLASSES

LISTS = ("train.txt", "val.txt")


def train_aug(sbd: Iterable[str], voc_train: Iterable[str], voc_val: Iterable[str]) -> list[str]:
    """The names of train_aug, sorted: what SBD (its training and its validation images) or VOC trains on, without VOC's
    validation images.

    Example:
        >>> train_aug(sbd=["a", "b", "d"], voc_train=["a", "c"], voc_val=["b", "e"])
        ['a', 'c', 'd']
    """
    return sorted((set(sbd) | set(voc_train)) - set(voc_val))


def augment(root: Path, archive: Path, folder: Path) -> list[str]:
    """Fill the new `folder` with masks of class ids, of VOC where VOC has them, else of SBD; the names of train_aug.

    Args:
        root: VOC's devkit folder.
        archive: SBD's benchmark.tgz.

    Raises:
        UserError: the archive is damaged or lacks a list, or a mask that its lists name.
    """
    own = {path.stem: path for path in (root / "SegmentationClass").glob("*.png")}
    for name, path in track(sorted(own.items()), "VOC's own masks", len(own), "masks"):
        with Image.open(path) as mask:
            _write(np.array(mask), folder / f"{name}.png")
    written, lists = set(own), {}
    with damage_named(archive):
        for member, content in read_members(archive, folder, below("benchmark_RELEASE/dataset", "cls", *LISTS)):
            if member.name in LISTS:
                lists[member.name] = content.read().decode().split()
            elif member.suffix == ".mat" and member.stem not in own:
                _write(_segmentation(content.read(), archive, member), folder / f"{member.stem}.png")
                written.add(member.stem)
    if missing := set(LISTS) - lists.keys():
        raise UserError(f"{archive}: has no {min(missing)}; this is not SBD's archive, or it is cut short")
    voc_train, voc_val = (read_lines(root / "ImageSets/Segmentation" / name) for name in LISTS)
    names = train_aug(lists["train.txt"] + lists["val.txt"], voc_train, voc_val)
    if unlabelled := sorted(set(names) - written):
        raise UserError(f"{archive}: has no mask of {unlabelled[0]} ({len(unlabelled)} such images); it is cut short")
    return names


def _segmentation(content: bytes, archive: Path, member: PurePosixPath) -> UInt8Array:
    """The class ids, uint8 [H, W], in a .mat file of SBD."""
    from scipy.io import loadmat  # takes a while to import, and is needed here alone

    try:
        # scipy's stubs know of no open files.
        ids = loadmat(io.BytesIO(content))["GTcls"]["Segmentation"][0, 0]  # type: ignore[arg-type]
    except Exception as error:  # what a broken file makes of it is not documented
        raise UserError(f"{archive}: {member}: no GTcls.Segmentation can be read from it ({error})") from None
    if ids.ndim != 2 or ids.dtype != np.uint8 or ids.max(initial=0) > len(CLASSES):
        raise UserError(f"{archive}: {member}: GTcls.Segmentation is no mask of ids 0..{len(CLASSES)}")
    return np.asarray(ids, np.uint8)


def _write(ids: UInt8Array, path: Path) -> None:
    Image.fromarray(ids).save(path)
