"""From a manifest's `dataset` section to the data set."""

from __future__ import annotations

from eircli.common.types import DataSet
from eircli.config.datasets import Ade20k, Dataset, Folder, Voc
from eircli.data.ade20k import ade20k
from eircli.data.folder import folder
from eircli.data.shapes import shapes
from eircli.data.voc import voc


def open_dataset(config: Dataset) -> DataSet:
    """The data set that a `dataset` section names."""
    match config:
        case Voc():
            return voc(config)
        case Ade20k():
            return ade20k(config)
        case Folder():
            return folder(config)
        case _:
            return shapes(config)
