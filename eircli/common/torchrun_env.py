"""Rank and world size from torchrun's environment variables. Imports no torch."""

from __future__ import annotations

import os
from typing import NamedTuple


class Launch(NamedTuple):
    """One of the processes that run a command."""

    rank: int
    """Global rank, from 0."""
    processes: int
    """World size; 1 without torchrun."""
    local_rank: int
    """Rank on its machine."""
    local_processes: int
    """Processes on its machine."""


def launched() -> Launch:
    """The rank and world size that torchrun gave this process."""
    names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
    return Launch(*(int(os.environ.get(name, alone)) for name, alone in names.items()))
