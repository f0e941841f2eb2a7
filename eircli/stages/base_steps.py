"""Base steps, shared between runs: what is the same for several runs is trained once.

Checkpoints lie beside the runs, in `.base-steps/HASH.pt`, under the hash of all that they depend on. They are hard links
to the runs' own files where the file system has such, and cost no room.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from eircli.engine.checkpoint import load_state
from eircli.errors import UserError
from eircli.progress import Say
from eircli.workbench import Workbench


def shared_checkpoint(bench: Workbench) -> Path:
    """Where the run's base step lies for others."""
    return bench.run.path.parent / ".base-steps" / f"{bench.base_fingerprint[:32]}.pt"


@contextmanager
def claimed(bench: Workbench, say: Say) -> Iterator[None]:
    """Hold the run's base step: whoever else needs the same one waits until it is there."""
    path = shared_checkpoint(bench)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say("step 0: another run is training the same base step; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def take(bench: Workbench, say: Say) -> bool:
    """Make the shared checkpoint, if there is one, the run's own."""
    path = shared_checkpoint(bench)
    if not path.exists():
        return False
    try:
        load_state(path, bench.base_fingerprint, "it is not used")
    except UserError as error:
        say(f"{error}; training the base step anew")
        return False
    own = bench.run.checkpoint(0)
    _link(path, own)
    bench.run.record(0, "checkpoint", own, base_step=bench.base_fingerprint, shared=True)
    say(f"step 0: the same as another run's, taken from {path}")
    return True


def share(bench: Workbench) -> None:
    """Leave the run's trained base step for others."""
    _link(bench.run.verify(0, "checkpoint"), shared_checkpoint(bench))


def _link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy of it, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
