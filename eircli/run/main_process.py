"""Work on a run by one process or several: the main one holds the run, decides what is to do, and writes; all of them compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from eircli.engine.distributed import count, from_main
from eircli.run.run import Workbench
from eircli.run.rundir import Artifact

T = TypeVar("T")


@contextmanager
def at_work(bench: Workbench) -> Iterator[None]:
    """Hold a run for writing."""
    with ExitStack() as held:

        def begin() -> None:
            held.enter_context(bench.run.locked())
            if count() > 1:  # read by one process, and cached for the others
                _ = bench.train_index, bench.val_index

        by_main(bench, begin)
        yield


def by_main(bench: Workbench, write: Callable[[], T]) -> T:
    """What `write` returns in the main process, which alone calls it; all processes then know the record that it leaves."""
    result, steps = from_main(lambda: (write(), bench.run.steps))
    bench.run.adopt(steps)
    return result


def is_done(bench: Workbench, step: int, artifact: Artifact) -> bool:
    """`RunDir.done`, looked up by the main process for all: they must agree, and another machine may see a file later."""
    return from_main(lambda: bench.run.done(step, artifact))
