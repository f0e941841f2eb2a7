"""Progress of long work on stderr: a bar with speed and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")

Say = Callable[[str], None]
"""Prints a status line."""


SILENT_SECONDS = 2.0
"""Seconds; shorter work prints no progress lines unless `every` was given."""


class Reporter(Protocol):
    """Is told how much work has been finished."""

    def advance(self, count: int = 1, note: str = "") -> None: ...


class _Speed(ProgressColumn):
    def __init__(self, unit: str, scale: float) -> None:
        super().__init__()
        self.unit, self.scale = unit, scale

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed * self.scale:.3g} {self.unit}/s" if speed else "")


class _Bar:
    def __init__(self, progress: Progress, title: str, total: int, done: int) -> None:
        self.progress = progress
        self.task = progress.add_task(title, total=total, completed=done, note="")

    def advance(self, count: int = 1, note: str = "") -> None:
        self.progress.update(self.task, advance=count, note=note)


class _Lines:
    def __init__(self, title: str, total: int, unit: str, scale: float, every: float | None, done: int) -> None:
        self.title, self.total, self.unit, self.scale, self.every = title, total, unit, scale, every or max(total / 10, 1)
        self.started, self.start, self.done = time.monotonic(), done, done
        self.quick = every is None

    def advance(self, count: int = 1, note: str = "") -> None:
        before, self.done = self.done, self.done + count
        if int(before / self.every) == int(self.done / self.every) and self.done < self.total:
            return
        if self.quick and time.monotonic() - self.started < SILENT_SECONDS:
            return
        speed = (self.done - self.start) / max(time.monotonic() - self.started, 1e-9)
        left = (self.total - self.done) / speed
        parts = [f"{self.title} {self.done}/{self.total}", note, f"{speed * self.scale:.3g} {self.unit}/s", f"{left:.0f} s left"]
        print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)


@contextmanager
def progress(
    title: str, total: int, unit: str, *, scale: float = 1.0, every: float | None = None, done: int = 0
) -> Iterator[Reporter]:
    """Report work of `total` items, `done` of them already done.

    Args:
        unit: unit of the displayed rate; one item counts as `scale` units.
        every: items between two lines where there is no terminal; a tenth of the total if None.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(title, total, unit, scale, every, done)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(unit, scale),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield _Bar(bar, title, total, done)


def track(items: Iterable[T], title: str, total: int, unit: str) -> Iterator[T]:
    """Iterate under a progress bar."""
    with progress(title, total, unit) as reporter:
        for item in items:
            yield item
            reporter.advance()
