"""Base steps shared between runs: one that is the same for several runs is trained once.

Checkpoints lie beside the runs, in `.base-steps/HASH.pt`, under the hash of all that they depend on: settings, data files,
starting weights, dtype. Beside each lies its own SHA-256. They are hard links to the runs' own files where the
file system has such, and cost no room.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from eircli.common.distributed import broadcast_from_main
from eircli.common.io import sha256, write_text
from eircli.common.progress import Say
from eircli.engine.device import choose_compute
from eircli.model.backbones import weights_license
from eircli.run.main_process import write_on_main
from eircli.run.record import Facts
from eircli.run.run import Run

VERSION = 4
"""Incremented whenever the same settings and data would train another base step."""


def shared_checkpoint(run: Run) -> Path:
    """The path of the run's base step in the shared folder."""
    compute, weights = choose_compute(run.manifest.runtime), Path(run.manifest.model.weights)
    decides = [
        str(VERSION),
        run.base_fingerprint,
        run.dataset.train.fingerprint(),
        sha256(weights) if weights.is_file() else "",
        f"{compute.device.type} {compute.dtype}",
    ]
    key = hashlib.sha256("\n".join(decides).encode()).hexdigest()
    return run.directory.path.parent / ".base-steps" / f"{key[:32]}.pt"


@contextmanager
def base_step_lock(run: Run, say: Say) -> Iterator[None]:
    """Hold the lock of the run's base step: other runs that need the same one wait until it is trained."""
    with ExitStack() as held:
        broadcast_from_main(lambda: held.enter_context(_lock(run, say)))
        yield


@contextmanager
def _lock(run: Run, say: Say) -> Iterator[None]:
    path = shared_checkpoint(run)
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


def reuse_base_step(run: Run, say: Say) -> bool:
    """Link the shared checkpoint, if there is one, into the run; whether there was."""
    return write_on_main(run, lambda: _reuse(run, say))


def _reuse(run: Run, say: Say) -> bool:
    path = shared_checkpoint(run)
    if not path.exists():
        return False
    digest = sha256(path)
    known = path.with_suffix(".sha256")
    if not known.exists() or known.read_text().strip() != digest:
        say(f"{path}: damaged (not the SHA-256 beside it), and not used; training the base step anew")
        return False
    own = run.directory.checkpoint(0)
    _link(path, own)
    run.directory.record(0, "checkpoint", own, **base_step_facts(run), shared_from=path.stem)
    run.directory.resume_file(0).unlink(missing_ok=True)
    say(f"step 0: the same as another run's, taken from {path}")
    return True


def base_step_facts(run: Run) -> Facts:
    """What the record of a base step says of what it depends on, and of the licence of its starting weights."""
    license = weights_license(run.manifest.model)
    return {"base_step": run.base_fingerprint, **({} if license is None else {"weights_license": license})}


def publish_base_step(run: Run) -> None:
    """Link the run's trained base step into the shared folder."""
    broadcast_from_main(lambda: _publish(run))


def _publish(run: Run) -> None:
    own, path = run.directory.verify(0, "checkpoint"), shared_checkpoint(run)
    path.with_suffix(".sha256").unlink(missing_ok=True)
    _link(own, path)
    write_text(path.with_suffix(".sha256"), sha256(path) + "\n")


def _link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy of it, atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
