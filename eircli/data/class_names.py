"""The class names of a format: checked, and some of them picked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eircli.common.errors import UserError
from eircli.common.suggest import did_you_mean
from eircli.common.types import UInt8Array

MOST = 254
"""Class ids are bytes; 0 is background, 255 ignore."""


class Picked(NamedTuple):
    """The classes of a data set, out of those of its files."""

    classes: tuple[str, ...]
    table: UInt8Array
    """uint8 [1 + names]: the position of a name among the files', from 1, → class id, 0 if it is not picked."""

    @property
    def positions(self) -> tuple[int, ...]:
        """The positions of the classes among the files' names, from 1."""
        return tuple(int(np.flatnonzero(self.table == class_id)[0]) for class_id in range(1, len(self.classes) + 1))


def pick(names: Sequence[str], classes: Sequence[str] | None, source: object) -> Picked:
    """All names in their order, or those that `dataset.classes` picks, in its order.

    Args:
        source: what names the file or folder that has the names.

    Raises:
        UserError: a name that occurs twice, is not there, or no or too many classes.
    """
    if twice := sorted({name for name in names if list(names).count(name) > 1}):
        raise UserError(f"{source}: two classes are named '{twice[0]}'; rename one of them")
    if classes is None and not 1 <= len(names) <= MOST:
        raise UserError(f"{source}: has {len(names)} classes; give 1 to {MOST}, or pick some by dataset.classes")
    chosen = tuple(names if classes is None else classes)
    if len(set(chosen)) < len(chosen):
        raise UserError("dataset.classes: a name occurs twice")
    if not 1 <= len(chosen) <= MOST:
        raise UserError(f"dataset.classes: picks {len(chosen)} classes; give 1 to {MOST}")
    table = np.zeros(1 + len(names), np.uint8)
    for class_id, name in enumerate(chosen, start=1):
        if name not in names:
            hint = did_you_mean(name, names).rstrip()
            raise UserError(f"dataset.classes: '{name}' is not in {source}" + (f"; {hint}" if hint else ""))
        table[list(names).index(name) + 1] = class_id
    return Picked(chosen, table)
