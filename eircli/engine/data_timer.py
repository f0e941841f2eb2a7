"""Batches for the training loop, and how long it waits for them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import torch

from eircli.common.types import Batch

Mark = float | torch.cuda.Event


class DataTimer:
    """Iterates over batches, and takes the time that the device waits for them.

    A CUDA device waits from the end of its work on one batch to the arrival of the next. (The host's own waiting says little:
    it runs ahead, and may wait while the device still works.) The CPU waits from asking for a batch to getting it.
    """

    def __init__(self, batches: Iterable[Batch], device: torch.device) -> None:
        self.batches, self.device = batches, device
        self._waits: list[tuple[Mark, Mark]] = []

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.batches)
        before = self._mark()
        for batch in batches:
            self._waits.append((before, self._mark()))
            yield batch
            before = self._mark()

    def waited(self) -> float:
        """Seconds of waiting since last asked; on CUDA it waits for the device."""
        total = sum(_seconds(before, after) for before, after in self._waits)
        self._waits.clear()
        return total

    def _mark(self) -> Mark:
        """Now, as a time or as a place in the device's queue of work."""
        if self.device.type != "cuda":
            return time.monotonic()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event


def _seconds(before: Mark, after: Mark) -> float:
    if isinstance(before, torch.cuda.Event):
        assert isinstance(after, torch.cuda.Event)
        after.synchronize()
        return float(before.elapsed_time(after)) / 1000
    assert isinstance(after, float)
    return after - before
