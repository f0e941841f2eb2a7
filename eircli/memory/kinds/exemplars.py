"""The base of the kinds that keep exemplars under a budget, in a bank."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from eircli.common.distributed import gather_shards, shard, world_size
from eircli.common.errors import UserError
from eircli.common.progress import track
from eircli.common.types import Exemplar, SampleSource
from eircli.config.manifest import Memory
from eircli.memory.bank import Bank, write_bank
from eircli.memory.codecs import check_codec
from eircli.memory.encoded import EncodedExemplar, encode
from eircli.memory.harvest import Candidate, candidates, instance_candidates
from eircli.memory.kinds.base import Facts, Harvest, Material, MemoryKind, Writer
from eircli.memory.select import RULES, Pool, share_out
from eircli.memory.standalone import AnnotatedImages


class ExemplarKind(MemoryKind):
    """Exemplars chosen by `memory.rule` under `memory.budget` (methods/README.md §4)."""

    name: ClassVar[str]

    @abstractmethod
    def find(self, images: AnnotatedImages, channels: Sequence[int], image: int, settings: Memory) -> list[Candidate]:
        """The candidates of `channels` in the image at a position."""

    @abstractmethod
    def make_exemplar(self, harvest: Harvest, candidate: Candidate) -> Exemplar:
        """The exemplar that a candidate stands for."""

    @abstractmethod
    def shown(self, path: Path) -> SampleSource:
        """The exemplars of a bank as pictures uint8 [h, w, 3], with labels [h, w] that have a class's id where its object is."""

    def dedup_key(self, class_id: int, position: int, source: str) -> Hashable:
        """Identity of a candidate: of several with the same identity only one is kept. By default all differ."""
        return class_id, position

    def remedy(self, settings: Memory) -> str:
        """What a user can change if nothing can be kept."""
        return f"a larger memory.budget ({settings.limit})"

    def class_order(self, ranked: dict[int, Sequence[int]]) -> dict[int, Sequence[int]]:
        """The ranked candidates, ordered by class as the classes take turns under the budget."""
        return ranked

    def prepare(self, material: Material) -> Writer:
        settings = material.settings
        check_codec(settings.encoding)
        records = self.choose(material)
        own = {"kind": self.name, "rule": settings.rule, "budget": str(settings.budget), "selection": settings.selection}

        def write(path: Path, facts: Facts) -> Facts:
            write_bank(path, records, {**facts, **own})
            written = Bank(path)
            return {**own, "exemplars": len(written), "bytes": written.size}

        return write

    def choose(self, material: Material) -> Iterator[EncodedExemplar]:
        """Find candidates, rank them, share out the budget, encode what is kept; class by class.

        Raises:
            UserError: nothing can be kept.
        """
        supply, limit = Supply(self, material, find_candidates(self, material)), material.settings.limit
        # Sizes and identities are cached, encoded exemplars are not: in one process the bank is written in little memory.
        cost = cache(lambda class_id, position: supply.encoded(class_id, position).size if limit.unit == "bytes" else 1)
        kept = share_out(self.class_order(supply.ranked()), limit.amount, cost, cache(supply.dedup_key))
        if not any(kept.values()):
            raise UserError(f"step {material.step + 1}: nothing could be kept; try {self.remedy(material.settings)}")
        chosen = [(class_id, position) for class_id, positions in kept.items() for position in positions]
        if world_size() == 1:
            return (supply.encoded(*one) for one in chosen)  # one at a time, as they are written
        return iter(gather_shards([supply.encoded(*chosen[number]) for number in shard(len(chosen))]))

    def per_class(self, path: Path, class_ids: Sequence[int]) -> dict[int, int]:
        return Bank(path).per_class()


class ObjectKind(ExemplarKind):
    """Exemplars of single objects, as `memory.selection` says what one is."""

    def find(self, images: AnnotatedImages, channels: Sequence[int], image: int, settings: Memory) -> list[Candidate]:
        if settings.selection == "instance":
            return instance_candidates(images.load_instances(image), channels, image, settings.min_area)
        return candidates(images.load_label(image), channels, image, settings.selection, settings.min_area)

    def remedy(self, settings: Memory) -> str:
        larger = super().remedy(settings)
        return f"--set memory.selection=component, or {larger}" if settings.selection == "single-component" else larger


class _Labels:
    """The candidates of one image; mapped over all images by worker processes."""

    def __init__(self, kind: ExemplarKind, material: Material) -> None:
        self.find, self.images, self.channels = kind.find, material.images, list(material.new)
        self.settings = material.settings

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, image: int) -> list[Candidate]:
        return self.find(self.images, self.channels, image, self.settings)


def find_candidates(kind: ExemplarKind, material: Material) -> list[Candidate]:
    """The candidates of the new classes in all images, ordered by image; processes share the images."""
    labels = Subset(cast(Any, _Labels(kind, material)), shard(len(material.images)))
    loader: DataLoader[Any] = DataLoader(labels, batch_size=None, num_workers=material.workers, generator=torch.Generator())
    per_image = list(track(loader, f"harvesting step {material.step}", len(labels), "images"))
    return [candidate for of_image in gather_shards(per_image) for candidate in of_image]


class Supply:
    """All that may be kept: candidates in the step's images for its new classes, exemplars of the previous bank for the old ones."""

    def __init__(self, kind: ExemplarKind, material: Material, found: Sequence[Candidate]) -> None:
        self.kind, self.material, self.found = kind, material, found
        self.before = None if material.before is None else Bank(material.before)

    def ranked(self) -> dict[int, Sequence[int]]:
        """Class id → positions, best first: old classes in the order of the previous bank, new ones ranked by the rule."""
        ranked: dict[int, Sequence[int]] = {}
        for class_id in self.material.old:
            assert self.before is not None
            ranked[class_id] = self.before.classes.get(class_id, range(0))
        pool = self._pool()
        channel_of = np.array([candidate.channel for candidate in self.found], np.intp)
        for channel, class_id in self.material.new.items():
            mine = np.flatnonzero(channel_of == channel)
            of_class = Pool(pool.area[mine], pool.confidence[mine], pool.features[mine])
            ranked[class_id] = mine[RULES[self.material.settings.rule](of_class, self.material.generator)].tolist()
        return ranked

    def _pool(self) -> Pool:
        """Area, confidence and features of all candidates."""
        area = np.array([candidate.area for candidate in self.found], float)
        if not self.material.settings.needs_model or not self.found:
            return Pool(area, np.zeros(len(area)), np.zeros((len(area), 0)))
        scores = self.material.score(self.found)
        features = np.stack([score.feature for score in scores]).astype(float)
        return Pool(area, np.array([score.confidence for score in scores]), features)

    def encoded(self, class_id: int, position: int) -> EncodedExemplar:
        """One exemplar, encoded."""
        if class_id in self.material.old:
            assert self.before is not None
            return self.before.record(position)
        settings = self.material.settings
        return encode(self.kind.make_exemplar(self.material, self.found[position]), settings.encoding, settings.quality)

    def dedup_key(self, class_id: int, position: int) -> Hashable:
        """Its identity (`ExemplarKind.dedup_key`)."""
        if class_id in self.material.old:
            return self.kind.dedup_key(class_id, position, self.encoded(class_id, position).source)
        return self.kind.dedup_key(class_id, position, self.material.images.ids[self.found[position].image])
