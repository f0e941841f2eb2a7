"""Ctrl-C and SIGTERM at a safe point: the loop finishes its iteration and saves first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Signal handler that records a request to stop."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked:  # a second signal stops at once
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Signals inside the block set a flag; a second one interrupts at once. Does nothing outside the main thread."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_interrupts(_worker: int = 0) -> None:
    """For data loader workers: signals reach the whole process group, but only the main process handles them."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
