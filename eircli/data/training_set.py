"""The samples of a training step in a reproducible order, the same for any number of workers and after a resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.utils.data import Dataset

from eircli.common.seeds import SEEDS, derive_seed
from eircli.common.types import BACKGROUND, IGNORE, Batch, Sample, SampleSource

Key = tuple[int, int]
"""A sample's position and the seed of its augmentation."""

Transform = Callable[[Sample], tuple[Tensor, Tensor]]


Augmented = tuple[Tensor, Tensor, bool]
"""Image, label, and whether the sample is replayed."""


class TrainingSet(Dataset[Augmented]):
    """The concatenation of several sources, augmented; a sample's augmentation depends on its key alone.

    The first source is the step's new images; samples of the others are replayed.

    Args:
        largest_share: the largest share of the whole that replayed samples make up: of more, each time some are drawn by the
            sample's seed. None: each is there once.
        own_pastes: the chance that a sample gets the labelled objects of another new image, where they are in that one.
    """

    def __init__(
        self,
        sources: Sequence[SampleSource],
        transform: Transform,
        largest_share: float | None = None,
        own_pastes: float = 0.0,
    ) -> None:
        new, *replayed = sources
        self.new, self.replayed = new, list(replayed)
        self.ends = list(accumulate(len(source) for source in replayed))
        self.kept = self.ends[-1] if replayed else 0
        self.places = replayed_places(len(new), self.kept, largest_share)
        self.transform, self.own_pastes = transform, own_pastes

    def __len__(self) -> int:
        return len(self.new) + self.places

    def _load(self, position: int, seed: int) -> Sample:
        if position < len(self.new):
            return self.new.load(position)
        place = position - len(self.new)
        if self.places < self.kept:
            place = derive_seed(seed, "replayed") % self.kept
        which = next(i for i, end in enumerate(self.ends) if place < end)
        return self.replayed[which].load(place - self.ends[which] + len(self.replayed[which]))

    def __getitem__(self, key: Key) -> Augmented:
        position, seed = key
        image, label = self._augmented(position, seed)
        if self.own_pastes and derive_seed(seed, "pasted") < self.own_pastes * SEEDS:
            other = derive_seed(seed, "other")
            objects, theirs = self._augmented(other % len(self.new), other)
            inside = (theirs != BACKGROUND) & (theirs != IGNORE)
            image, label = torch.where(inside, objects, image), torch.where(inside, theirs, label)
        return image, label, position >= len(self.new)

    def _augmented(self, position: int, seed: int) -> tuple[Tensor, Tensor]:
        sample = self._load(position, seed)
        # The transforms draw from the global generator. (torch.manual_seed would also queue a CUDA seeding call per sample.)
        before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(seed)
        augmented = self.transform(sample)
        torch.default_generator.set_state(before)
        return augmented


def replayed_places(new: int, kept: int, largest_share: float | None) -> int:
    """How many of `kept` replayed samples a pass over `new` new ones has (`TrainingSet`); at least one, if there are any."""
    if largest_share is None or not kept:
        return kept
    return min(kept, max(1, round(new * largest_share / (1 - largest_share))))


class BatchStream:
    """Concatenated shuffled epochs split into batches; a batch may span two epochs.

    A pure function of the seed and the iteration, so a resumed run resumes with the batch it stopped before.

    Args:
        rows: which rows of each batch to yield; all if None.
    """

    def __init__(self, length: int, batch_size: int, seed: int, start: int, iterations: int, rows: range | None = None) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.start, self.iterations = start, iterations
        self.rows = range(batch_size) if rows is None else rows

    def __len__(self) -> int:
        return self.iterations - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, order = -1, []
        for first in range(self.start * self.batch_size, self.iterations * self.batch_size, self.batch_size):
            batch = []
            for place in range(first + self.rows.start, first + self.rows.stop):
                if place // self.length != epoch:
                    epoch = place // self.length
                    generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
                    order = torch.randperm(self.length, generator=generator).tolist()
                batch.append((order[place % self.length], derive_seed(self.seed, "augment", place)))
            yield batch


def collate(samples: list[Augmented]) -> Batch:
    """A batch of augmented samples; the training loop gives it its seed."""
    images, labels, replayed = zip(*samples, strict=True)
    return Batch(torch.stack(images), torch.stack(labels), 0, torch.tensor(replayed))
