"""The samples of a training step in a reproducible order, the same for any number of workers and after a resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.utils.data import Dataset

from eircli.common.seeds import derive_seed
from eircli.common.types import Batch, Sample, SampleSource

Key = tuple[int, int]
"""A sample's position and the seed of its augmentation."""

Transform = Callable[[Sample], tuple[Tensor, Tensor]]


Augmented = tuple[Tensor, Tensor, bool]
"""Image, label, and whether the sample is replayed."""


class TrainingSet(Dataset[Augmented]):
    """The concatenation of several sources, augmented; a sample's augmentation depends on its key alone.

    The first source is the step's new images; samples of the others are replayed.
    """

    def __init__(self, sources: Sequence[SampleSource], transform: Transform) -> None:
        self.sources = list(sources)
        self.ends = list(accumulate(len(source) for source in sources))
        self.transform = transform

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, key: Key) -> Augmented:
        position, seed = key
        which = next(i for i, end in enumerate(self.ends) if position < end)
        start = self.ends[which] - len(self.sources[which])
        sample = self.sources[which].load(position - start)
        # The transforms draw from the global generator. (torch.manual_seed would also queue a CUDA seeding call per sample.)
        before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(seed)
        image, label = self.transform(sample)
        torch.default_generator.set_state(before)
        return image, label, which > 0


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
