"""Foveated instances: objects sharp, with a ring around them, in a coarse picture of their scene. Pasted, and samples of their own."""

from __future__ import annotations

from pathlib import Path

import torch

from eircli.common.types import Colour, Exemplar, SampleSource, UInt8Array
from eircli.memory.decoded import Instances, decode
from eircli.memory.foveated import FoveatedBank, FoveatedSamples
from eircli.memory.harvest import Candidate, cut_out_foveated
from eircli.memory.kinds.base import Harvest
from eircli.memory.kinds.exemplars import ObjectKind
from eircli.memory.standalone import CLASS_IDS, LabelledImages


class FoveatedMemory(ObjectKind):
    """Each exemplar is one object with its surroundings (`memory.ring`, `memory.thumbnail`)."""

    name = "foveated"

    def make_exemplar(self, harvest: Harvest, candidate: Candidate) -> Exemplar:
        sample, settings = harvest.images.load(candidate.image), harvest.settings
        origin, known = harvest.origin(candidate), harvest.instances(candidate)
        return cut_out_foveated(sample, candidate, origin, settings.ring, settings.thumbnail, known)

    def shown(self, path: Path) -> SampleSource:
        return FoveatedSamples(FoveatedBank(path), CLASS_IDS)

    def samples(self, path: Path, table: UInt8Array, canvas: Colour, current: LabelledImages | None = None) -> SampleSource:
        return FoveatedSamples(FoveatedBank(path), table)

    def for_step(self, path: Path, table: UInt8Array, old: int, device: torch.device, device_bytes: float) -> Instances:
        return decode(FoveatedBank(path), table, old, device, device_bytes)


KIND = FoveatedMemory()
