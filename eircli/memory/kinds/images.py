"""Whole stored images with the labels they had: further training samples."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path

from eircli.common.types import Colour, Exemplar, SampleSource, UInt8Array
from eircli.config.manifest import Memory
from eircli.memory.bank import Bank
from eircli.memory.harvest import Candidate, image_candidates, store_image
from eircli.memory.kinds.base import Harvest
from eircli.memory.kinds.exemplars import ExemplarKind
from eircli.memory.standalone import CLASS_IDS, AnnotatedImages, LabelledImages, StoredImages


class ImageMemory(ExemplarKind):
    """Each exemplar is a training image, ranked for every class that it holds, kept once."""

    name = "images"

    def find(self, images: AnnotatedImages, channels: Sequence[int], image: int, settings: Memory) -> list[Candidate]:
        return image_candidates(images.load_label(image), channels, image)

    def make_exemplar(self, harvest: Harvest, candidate: Candidate) -> Exemplar:
        return store_image(harvest.images.load(candidate.image), harvest.origin(candidate), harvest.ids)

    def dedup_key(self, class_id: int, position: int, source: str) -> Hashable:
        return source

    def class_order(self, ranked: dict[int, Sequence[int]]) -> dict[int, Sequence[int]]:
        """The rarest class first: common ones share its images."""
        return dict(sorted(ranked.items(), key=lambda pair: len(pair[1])))

    def shown(self, path: Path) -> SampleSource:
        return StoredImages(Bank(path), CLASS_IDS)

    def samples(self, path: Path, table: UInt8Array, canvas: Colour, current: LabelledImages | None = None) -> SampleSource:
        return StoredImages(Bank(path), table, current)


KIND = ImageMemory()
