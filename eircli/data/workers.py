"""Work on every image of a split, shared out to processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from eircli.common.types import Split

T = TypeVar("T")

_split: Split
_work: Callable[[Split, int], Any]


def for_each_image(split: Split, work: Callable[[Split, int], T], workers: int, minimum: int) -> Iterator[T]:
    """What `work` makes of each image of a split, in their order.

    Args:
        work: a function of the split and a position, of a module, that worker processes can import.
        minimum: splits with fewer images are worked on in this process: starting workers would take longer.
    """
    if workers < 2 or len(split) < minimum:
        yield from (work(split, position) for position in range(len(split)))
        return
    # spawn: the caller may have threads running, which a fork would not survive.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_take, initargs=(split, work)) as pool:
        try:
            yield from pool.map(_apply, range(len(split)), chunksize=32)
        finally:
            pool.shutdown(cancel_futures=True)


def _take(split: Split, work: Callable[[Split, int], Any]) -> None:
    global _split, _work
    _split, _work = split, work


def _apply(position: int) -> Any:
    return _work(_split, position)
