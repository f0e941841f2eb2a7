"""The table of memory kinds. A kind is a line here and the module of its name in `eircli/memory/kinds/`."""

from __future__ import annotations

from typing import NamedTuple


class MemoryKindEntry(NamedTuple):
    """What must be known of a kind where nothing is to be computed."""

    name: str
    bounded: bool
    """Whether it holds exemplars under `memory.budget`; else its size follows from the classes."""
    from_model: bool
    """Whether it is always made by the model of the step before; else only by the rules that ask the model."""


ENTRIES = (
    MemoryKindEntry("instances", bounded=True, from_model=False),
    MemoryKindEntry("images", bounded=True, from_model=False),
    MemoryKindEntry("prototypes", bounded=False, from_model=True),
)

MEMORY_KINDS = {entry.name: entry for entry in ENTRIES}
