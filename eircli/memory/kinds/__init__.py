"""The kinds of memory, one file each.

The table of their names is `eircli/config/memory_kinds.py`; the module of a kind's name holds it as `KIND`.
"""

from __future__ import annotations

from importlib import import_module

from eircli.memory.kinds.base import Material, MemoryKind, Writer

__all__ = ["Material", "MemoryKind", "Writer", "memory_kind"]


def memory_kind(name: str) -> MemoryKind:
    """The kind of memory of a name in the table."""
    kind = import_module(f"{__name__}.{name.replace('-', '_')}").KIND
    assert isinstance(kind, MemoryKind)
    return kind
