"""Prototypes: the features of a class as a distribution (`memory.prototypes`); 8 C + 20 bytes a class for C channels, no budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from eircli.common.types import UInt8Array
from eircli.memory.kinds.base import Facts, Material, MemoryKind, Writer
from eircli.memory.prototypes import Prototypes, gather, merge
from eircli.memory.tensor_file import read_tensors, write_tensors


class PrototypeMemory(MemoryKind):
    """One prototype per old class, from the features of the step that learned it."""

    def prepare(self, material: Material) -> Writer:
        def write(path: Path, facts: Facts) -> Facts:
            own = {"kind": "prototypes"}
            prototypes = gather(material.features(), list(material.new), list(material.new.values()))
            if material.before is not None:
                before = read_tensors(material.before, "prototypes", Prototypes)
                prototypes = merge(before, prototypes, material.options["shared_background"])
            write_tensors(path, "prototypes", prototypes, {**own, **facts})
            stored = sum(tensor.numel() * tensor.element_size() for tensor in prototypes)
            return {**own, "exemplars": len(prototypes.class_ids), "bytes": stored}

        return write

    def per_class(self, path: Path, class_ids: Sequence[int]) -> dict[int, int]:
        return dict.fromkeys(class_ids, 1)

    def for_step(self, path: Path, table: UInt8Array, old: int, device: torch.device, device_bytes: float) -> Prototypes:
        return Prototypes(*(tensor.to(device) for tensor in read_tensors(path, "prototypes", Prototypes)))


KIND = PrototypeMemory()
