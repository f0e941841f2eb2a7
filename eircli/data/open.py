"""The table of data sets: from a manifest's `dataset` section to class names and splits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from eircli.common.types import DataSet
from eircli.config.datasets import AnyDataset, Extended
from eircli.data import ade20k, coco, extended, folder, labelme, masks, shapes, voc, yolo
from eircli.data.files import Complain
from eircli.data.part import hold_out


class Opener(NamedTuple):
    """How a kind of data set is opened."""

    dataset: Callable[[Any], DataSet]
    class_names: Callable[[Any], tuple[str, ...]]
    """The names of its classes, without opening the data where they are fixed or given."""
    complaining: Callable[[Any, Complain], DataSet] | None = None
    """Opens it without the files that do not fit, telling of each; None where opening looks at no files."""
    remarks: Callable[[Any, DataSet], list[str]] = lambda config, data: []
    """What is odd about this data set, a line each, beside what can be odd about any."""


def _extended(config: Extended) -> DataSet:
    return extended.extended(config, open_dataset(config.data), [open_dataset(one) for one in config.before])


OPENERS = {
    "voc": Opener(voc.voc, voc.class_names, remarks=voc.remarks),
    "ade20k": Opener(ade20k.ade20k, ade20k.class_names, ade20k.ade20k, ade20k.remarks),
    "folder": Opener(folder.folder, folder.class_names, folder.folder),
    "coco": Opener(coco.coco, coco.class_names),
    "labelme": Opener(labelme.labelme, labelme.class_names),
    "yolo": Opener(yolo.yolo, yolo.class_names),
    "masks": Opener(masks.masks, masks.class_names),
    "shapes": Opener(shapes.shapes, shapes.class_names),
    "extended": Opener(_extended, extended.class_names),
}


def open_dataset(config: AnyDataset) -> DataSet:
    """The data set that a `dataset` section names.

    Raises:
        UserError: a file or folder is missing, or not in the layout of its kind.
    """
    data = OPENERS[config.kind].dataset(config)
    return data if config.hold_out is None else hold_out(data, config.hold_out)


def open_complaining(config: AnyDataset, complain: Complain) -> DataSet:
    """The data set, nothing held out, without the files that do not fit: `complain` is told of each.

    Raises:
        UserError: there is no data set to speak of.
    """
    opener = OPENERS[config.kind]
    return opener.dataset(config) if opener.complaining is None else opener.complaining(config, complain)


def remarks(config: AnyDataset, data: DataSet) -> list[str]:
    """What is odd about a data set of this kind, a line each that begins with its folder."""
    return OPENERS[config.kind].remarks(config, data)


def class_names(config: AnyDataset) -> tuple[str, ...]:
    """The names of its classes: class id k at position k - 1. Of most kinds they are known without the data.

    Raises:
        UserError: they stand in the data set alone, which is missing.
    """
    return OPENERS[config.kind].class_names(config)
