"""Working on a run with one or several processes: all compute; the main process holds the lock, decides and writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeVar

from eircli.common.distributed import broadcast_from_main, world_size
from eircli.run.record import Artifact

if TYPE_CHECKING:
    from eircli.run.run import Run

T = TypeVar("T")


@contextmanager
def locked_by_main(run: Run) -> Iterator[None]:
    """Hold the run's write lock (`Run.locked`), in the main process."""
    with ExitStack() as held:

        def begin() -> None:
            held.enter_context(run.locked())
            if world_size() > 1:  # read by one process, and cached for the others
                _ = run.train_index, run.val_index

        write_on_main(run, begin)
        yield


def write_on_main(run: Run, write: Callable[[], T]) -> T:
    """Call `write` in the main process alone, and broadcast what it returns and the record that it leaves."""
    result, record = broadcast_from_main(lambda: (write(), run.directory.recorded))
    run.directory.adopt(record)
    return result


def is_done(run: Run, step: int, artifact: Artifact) -> bool:
    """`RunDir.done` of the main process, broadcast: all must agree, and a shared file system may show a file later elsewhere."""
    return broadcast_from_main(lambda: run.directory.done(step, artifact))
