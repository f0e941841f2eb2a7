"""The interface of a kind of memory: how it is built, and what a step gets from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eircli.common.types import Colour, InstanceMap, SampleSource, UInt8Array
from eircli.config.manifest import Memory
from eircli.memory.harvest import Candidate, Origin
from eircli.memory.select import Score
from eircli.memory.standalone import AnnotatedImages, LabelledImages

Facts = Mapping[str, int | str]


def known_instances(images: AnnotatedImages, image: int, settings: Memory) -> InstanceMap | None:
    """The annotated objects of an image, int32 [H, W], where `memory.selection` asks for them; else None."""
    return images.load_instances(image) if settings.selection == "instance" else None


Writer = Callable[[Path, Facts], Facts]
"""Writes a memory to a file, given facts that identify it (step, recipe). Returns the facts for the run's record: at least its
`kind`, the number of `exemplars`, and their `bytes`. Called in the main process alone."""


@dataclass(frozen=True)
class Harvest:
    """A step's images, and how exemplars are cut from them."""

    step: int
    images: AnnotatedImages
    """The step's training images, as labelled at that step."""
    new: Mapping[int, int]
    """Channel → class id of the classes that the step has learned."""
    settings: Memory
    canvas: Colour
    """What is blank to the backbone."""

    @cached_property
    def ids(self) -> UInt8Array:
        """uint8 [256], channel → class id; other values map to themselves."""
        ids = np.arange(256, dtype=np.uint8)
        ids[list(self.new)] = list(self.new.values())
        return ids

    def instances(self, candidate: Candidate) -> InstanceMap | None:
        """The annotated objects of a candidate's image (`known_instances`)."""
        return known_instances(self.images, candidate.image, self.settings)

    def origin(self, candidate: Candidate) -> Origin:
        """Where the exemplar of a candidate comes from."""
        return Origin(self.new[candidate.channel], self.images.ids[candidate.image], self.step)


@dataclass(frozen=True)
class Material(Harvest):
    """The input from which the memory for the step after `step` is built.

    Passes through the step's model are callables, so that only the kinds and rules that use it need it trained.
    """

    old: Sequence[int]
    """The class ids learned before it."""
    before: Path | None
    """The memory that the step had; None if there are no classes before."""
    options: Mapping[str, float]
    """What the method's settings add (`MethodSettings.memory_options`)."""
    generator: np.random.Generator
    """Of the rules that draw."""
    workers: int
    """Worker processes that read labels."""
    score: Callable[[Sequence[Candidate]], list[Score]]
    """Scores candidates, ordered by image, by the step's model."""
    features: Callable[[], Iterable[tuple[Tensor, Tensor, Tensor]]]
    """Batches of the step's model over all images: features float [N, C, h, w], labels uint8 [N, h, w] on their grid, and where
    background is both labelled and predicted, bool [N, h, w]."""


class MemoryKind(ABC):
    """A kind of memory. Without state: all processes call its methods alike."""

    @abstractmethod
    def prepare(self, material: Material) -> Writer:
        """Choose what is kept; called by all processes.

        Returns:
            The function that writes it.

        Raises:
            UserError: nothing can be kept, or the memory before is damaged.
        """

    @abstractmethod
    def per_class(self, path: Path, class_ids: Sequence[int]) -> dict[int, int]:
        """How many exemplars the memory in a file holds of each of these class ids."""

    def samples(
        self, path: Path, table: UInt8Array, canvas: Colour, current: LabelledImages | None = None
    ) -> SampleSource | None:
        """The memory's contents as training samples; None if the kind has none.

        Args:
            table: uint8 [256], class id → channel.
            canvas: what is blank to the backbone.
            current: the step's own images, if those of them that are stored too are to show its labels (`memory.current_labels`).
        """
        return None

    def for_step(self, path: Path, table: UInt8Array, old: int, device: torch.device, device_bytes: float) -> object | None:
        """What the step's method gets as `Context.memory`, on the training device; None if it gets samples alone.

        Args:
            table: uint8 [256], class id → channel.
            old: the number of old classes, whose channels are 1..`old`.
            device_bytes: the most bytes of device memory; what needs more stays in host memory.
        """
        return None
