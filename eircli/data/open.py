"""The table of data sets: from a manifest's `dataset` section to class names and splits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from eircli.common.types import DataSet
from eircli.config.datasets import AnyDataset
from eircli.data import ade20k, coco, folder, labelme, masks, shapes, voc, yolo
from eircli.data.part import hold_out


class Opener(NamedTuple):
    """How a kind of data set is opened."""

    dataset: Callable[[Any], DataSet]
    class_names: Callable[[Any], tuple[str, ...]]
    """The names of its classes, without opening the data where they are fixed or given."""


OPENERS = {
    "voc": Opener(voc.voc, voc.class_names),
    "ade20k": Opener(ade20k.ade20k, ade20k.class_names),
    "folder": Opener(folder.folder, folder.class_names),
    "coco": Opener(coco.coco, coco.class_names),
    "labelme": Opener(labelme.labelme, labelme.class_names),
    "yolo": Opener(yolo.yolo, yolo.class_names),
    "masks": Opener(masks.masks, masks.class_names),
    "shapes": Opener(shapes.shapes, shapes.class_names),
}


def open_dataset(config: AnyDataset) -> DataSet:
    """The data set that a `dataset` section names.

    Raises:
        UserError: a file or folder is missing, or not in the layout of its kind.
    """
    data = OPENERS[config.kind].dataset(config)
    return data if config.hold_out is None else hold_out(data, config.hold_out)


def class_names(config: AnyDataset) -> tuple[str, ...]:
    """The names of its classes: class id k at position k - 1. Of most kinds they are known without the data.

    Raises:
        UserError: they stand in the data set alone, which is missing.
    """
    return OPENERS[config.kind].class_names(config)
