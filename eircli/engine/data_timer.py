"""How long the device waits for the data loader."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import torch

from eircli.common.types import Batch

Mark = float | torch.cuda.Event


class DataTimer:
    """Iterates over batches and measures how long the device is idle before each.

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
        """Seconds of idling since the last call; synchronises with a CUDA device."""
        total = sum(_seconds(before, after) for before, after in self._waits)
        self._waits.clear()
        return total

    def _mark(self) -> Mark:
        """Now: a clock time, or on CUDA an event in the current stream."""
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
