"""Which of torchrun's processes this one is, as its environment says. Imports no torch."""

from __future__ import annotations

import os
from typing import NamedTuple


class Launch(NamedTuple):
    """A process among those that work on one command."""

    rank: int
    """Its number, from 0, over all machines."""
    processes: int
    """How many there are; 1 without torchrun."""
    local_rank: int
    """Its number on its machine."""
    local_processes: int
    """How many there are on its machine."""


def launched() -> Launch:
    """This process among those that torchrun has started."""
    names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
    return Launch(*(int(os.environ.get(name, alone)) for name, alone in names.items()))
