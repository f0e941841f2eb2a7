"""Mixtures: the features of a class as a mixture of Gaussians (`memory.mixtures`); its size follows from classes and channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from eircli.common.types import UInt8Array
from eircli.memory.kinds.base import Facts, Material, MemoryKind, Writer
from eircli.memory.mixtures import Fitting, Mixtures, gather, merge
from eircli.memory.tensor_file import read_tensors, write_tensors


class MixtureMemory(MemoryKind):
    """One mixture per old class, from the features of the step that learned it."""

    def prepare(self, material: Material) -> Writer:
        options = material.options
        fitting = Fitting(int(options["components"]), bool(options["diagonal"]), int(options["cells"]))
        generator = torch.Generator().manual_seed(int(material.generator.integers(2**63)))

        def write(path: Path, facts: Facts) -> Facts:
            own = {"kind": "mixtures"}
            mixtures = gather(material.features(), list(material.new), list(material.new.values()), fitting, generator)
            if material.before is not None:
                before = read_tensors(material.before, "mixtures", Mixtures)
                mixtures = merge(before, mixtures, options["shared_background"])
            write_tensors(path, "mixtures", mixtures, {**own, **facts})
            stored = sum(tensor.numel() * tensor.element_size() for tensor in mixtures)
            return {**own, "exemplars": len(mixtures.class_ids), "bytes": stored}

        return write

    def per_class(self, path: Path, class_ids: Sequence[int]) -> dict[int, int]:
        return dict.fromkeys(class_ids, 1)

    def for_step(self, path: Path, table: UInt8Array, old: int, device: torch.device, device_bytes: float) -> Mixtures:
        return Mixtures(*(tensor.to(device) for tensor in read_tensors(path, "mixtures", Mixtures)))


KIND = MixtureMemory()
