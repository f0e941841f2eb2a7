"""Folder data sets: images/SPLIT, annotations/SPLIT and classes.txt."""

from __future__ import annotations

import numpy as np

from eircli.common.errors import UserError
from eircli.common.types import IGNORE, DataSet
from eircli.config.datasets import Folder
from eircli.data.class_names import pick
from eircli.data.files import Complain, pair_files, raise_it, read_lines


def class_names(config: Folder) -> tuple[str, ...]:
    """The classes that the settings pick, or else all of the folder's.

    Raises:
        UserError: the folder is missing.
    """
    return config.classes or _names_in_folder(config)


def folder(config: Folder, complain: Complain = raise_it) -> DataSet:
    """The two splits of a folder; line k of classes.txt names class id k, 0 is background, 255 ignore.

    Args:
        complain: as for `pair_files`.

    Raises:
        UserError: a folder or file that is missing, unpaired, or unreadable; or a class that is not there.
    """
    root, names = config.root, _names_in_folder(config)
    table, label_ids = None, None
    picked = pick(names, config.classes, root / "classes.txt")
    if config.classes is not None:
        table, label_ids = np.zeros(256, np.uint8), picked.positions
        table[: len(picked.table)] = picked.table
        table[IGNORE] = IGNORE
    train, val = (
        pair_files(root / "images" / split, root / "annotations" / split, len(names), table, complain)
        for split in (config.train_split, config.val_split)
    )
    return DataSet(picked.classes, train, val, label_ids)


def _names_in_folder(config: Folder) -> tuple[str, ...]:
    if not config.root.is_dir():
        raise UserError(f"dataset.root: {config.root} is no folder; set it with --set dataset.root=…")
    path = config.root / "classes.txt"
    names = read_lines(path)
    if not 1 <= len(names) <= 254 or len(set(names)) < len(names):
        raise UserError(f"{path}: needs 1 to 254 different names, a line each")
    return tuple(names)
