"""The base of the kinds that keep exemplars under a budget, in a bank."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from eircli.common.errors import UserError
from eircli.common.types import Exemplar, SampleSource, UInt8Array
from eircli.config.manifest import Memory
from eircli.memory.bank import Bank, EncodedExemplar, encode, write_bank
from eircli.memory.harvest import Candidate
from eircli.memory.kinds.base import Facts, Material, MemoryKind, Writer
from eircli.memory.select import RULES, Pool, share_out


class ExemplarKind(MemoryKind):
    """Exemplars chosen by `memory.rule` under `memory.budget` (methods/README.md §4)."""

    name: ClassVar[str]

    @abstractmethod
    def find(self, label: UInt8Array, channels: Sequence[int], image: int, settings: Memory) -> list[Candidate]:
        """The candidates of `channels` in the label map uint8 [H, W] of the image at a position."""

    @abstractmethod
    def make_exemplar(self, images: SampleSource, candidate: Candidate, ids: UInt8Array, source: str, step: int) -> Exemplar:
        """The exemplar that a candidate stands for.

        Args:
            ids: uint8 [256], channel → class id.
            source: the image's id.
        """

    def dedup_key(self, class_id: int, position: int, source: str) -> Hashable:
        """Identity of a candidate: of several with the same identity only one is kept. By default all differ."""
        return class_id, position

    def class_order(self, ranked: dict[int, Sequence[int]]) -> dict[int, Sequence[int]]:
        """The ranked candidates, ordered by class as the classes take turns under the budget."""
        return ranked

    def prepare(self, material: Material) -> Writer:
        settings, records = material.settings, self.choose(material)
        own = {"kind": self.name, "rule": settings.rule, "budget": str(settings.budget), "selection": settings.selection}

        def write(path: Path, facts: Facts) -> Facts:
            write_bank(path, records, {**facts, **own})
            written = Bank(path)
            return {**own, "exemplars": len(written), "bytes": written.size}

        return write

    def choose(self, material: Material) -> Iterator[EncodedExemplar]:
        """The exemplars under the budget, class by class.

        Raises:
            UserError: there is none.
        """
        supply, limit = Supply(self, material), material.settings.limit
        # Sizes and identities are cached, records are not: the bank is written one record at a time, in little memory.
        cost = cache(lambda class_id, position: supply.record(class_id, position).size if limit.unit == "bytes" else 1)
        kept = share_out(self.class_order(supply.ranked()), limit.amount, cost, cache(supply.dedup_key))
        if not any(kept.values()):
            raise UserError(
                f"step {material.step + 1}: nothing could be kept; try --set memory.selection=component, or a larger memory.budget ({limit})"
            )
        chosen = [(class_id, position) for class_id, positions in kept.items() for position in positions]
        return material.spread(lambda one: supply.record(*one), chosen)

    def per_class(self, path: Path, class_ids: Sequence[int]) -> dict[int, int]:
        return Bank(path).per_class()


class Supply:
    """All that may be kept: candidates in the step's images for its new classes, exemplars of the previous bank for the old ones."""

    def __init__(self, kind: ExemplarKind, material: Material) -> None:
        self.kind, self.material = kind, material
        self.before = None if material.before is None else Bank(material.before)
        self.found = material.scan(kind.find)
        self.ids = np.arange(256, dtype=np.uint8)
        self.ids[list(material.new)] = list(material.new.values())

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

    def record(self, class_id: int, position: int) -> EncodedExemplar:
        """One exemplar, encoded."""
        if class_id in self.material.old:
            assert self.before is not None
            return self.before.record(position)
        images, candidate, settings = self.material.images, self.found[position], self.material.settings
        exemplar = self.kind.make_exemplar(images, candidate, self.ids, images.ids[candidate.image], self.material.step)
        return encode(exemplar, settings.encoding, settings.jpeg_quality)

    def dedup_key(self, class_id: int, position: int) -> Hashable:
        """Its identity (`ExemplarKind.identity`)."""
        if class_id in self.material.old:
            return self.kind.dedup_key(class_id, position, self.record(class_id, position).source)
        return self.kind.dedup_key(class_id, position, self.material.images.ids[self.found[position].image])
