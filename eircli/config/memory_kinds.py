"""The table of memory kinds. A kind is a line here and the module of its name in `eircli/memory/kinds/`."""

from __future__ import annotations

from typing import NamedTuple


class MemoryKindEntry(NamedTuple):
    """Static metadata of a memory kind, known without torch."""

    name: str
    bounded: bool
    """Whether it holds exemplars under `memory.budget`; else its size follows from the classes."""
    from_model: bool
    """Whether it is always made by the model of the step before; else only under rules that score candidates with it."""
    whole_images: bool = False
    """Whether its exemplars are whole images with all their labels (`memory.current_labels`)."""


ENTRIES = (
    MemoryKindEntry("instances", bounded=True, from_model=False),
    MemoryKindEntry("foveated", bounded=True, from_model=False),
    MemoryKindEntry("images", bounded=True, from_model=False, whole_images=True),
    MemoryKindEntry("prototypes", bounded=False, from_model=True),
    MemoryKindEntry("mixtures", bounded=False, from_model=True),
)

MEMORY_KINDS = {entry.name: entry for entry in ENTRIES}
