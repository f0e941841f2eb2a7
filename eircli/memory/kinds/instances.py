"""Cut-out instances: the method's own memory (methods/README.md §4). They are pasted into new images, and samples on a blank canvas."""

from __future__ import annotations

from pathlib import Path

import torch

from eircli.common.types import Colour, Exemplar, SampleSource, UInt8Array
from eircli.memory.bank import Bank
from eircli.memory.decoded import Instances, decode
from eircli.memory.harvest import Candidate, cut_out
from eircli.memory.kinds.base import Harvest
from eircli.memory.kinds.exemplars import ObjectKind
from eircli.memory.standalone import CLASS_IDS, CutOuts, LabelledImages, StandaloneInstances


class InstanceMemory(ObjectKind):
    """Each exemplar is one object cut out of a training image, without its surroundings."""

    name = "instances"

    def make_exemplar(self, harvest: Harvest, candidate: Candidate) -> Exemplar:
        sample, known = harvest.images.load(candidate.image), harvest.instances(candidate)
        return cut_out(sample, candidate, harvest.origin(candidate), harvest.canvas, known)

    def shown(self, path: Path) -> SampleSource:
        return CutOuts(Bank(path), CLASS_IDS)

    def samples(self, path: Path, table: UInt8Array, canvas: Colour, current: LabelledImages | None = None) -> SampleSource:
        return StandaloneInstances(Bank(path), table, canvas)

    def for_step(self, path: Path, table: UInt8Array, old: int, device: torch.device, device_bytes: float) -> Instances:
        return decode(Bank(path), table, old, device, device_bytes)


KIND = InstanceMemory()
