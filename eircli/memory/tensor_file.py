"""A named tuple of tensors in an HDF5 file: what is kept of classes by their features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import h5py
import torch

from eircli.common.errors import UserError
from eircli.common.io import atomic_write

SCHEMA = 1

Tensors = TypeVar("Tensors", bound=NamedTuple)


def write_tensors(path: Path, what: str, tensors: NamedTuple, facts: Mapping[str, int | str]) -> None:
    """Write a named tuple of tensors of any shape, `what` in one word, to an HDF5 file atomically."""
    with atomic_write(path) as target, h5py.File(target, "w", libver="v110") as file:
        file.attrs[f"eir_{what}_schema"] = SCHEMA
        file.attrs.update(facts)
        for name, tensor in tensors._asdict().items():
            file[name] = tensor.numpy()


def read_tensors(path: Path, what: str, kind: type[Tensors]) -> Tensors:
    """The named tuple of tensors, of any shape, in a file.

    Raises:
        UserError: missing, damaged, or no such file.
    """
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get(f"eir_{what}_schema") != SCHEMA:
                raise UserError(f"{path}: holds no {what}; build it again with eir build-memory")
            make = cast(Any, kind)
            read = (file[name] for name in make._fields)
            tensors: Tensors = make(*(torch.from_numpy(data[()]) if data.shape else torch.tensor(data[()]) for data in read))
            return tensors
    except FileNotFoundError:
        raise UserError(f"{path}: missing; build it with eir build-memory") from None
    except (OSError, KeyError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it and build it again with eir build-memory") from None
