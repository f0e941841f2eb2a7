"""The package from Python: open a run, train its steps, evaluate, predict, read its figures. The commands do no more than this.

Every function that works on a run takes its lock while it does, resumes what was interrupted, and does nothing that is done.
A `Run` that `open_run` returns has the typed manifest (`run.manifest`), the schedule, the class names, and the record of what was
made (`run.directory.steps`).

    import eircli
    run = eircli.open_run("configs/shapes-6-2-eir.yaml", ["seed=1"])
    for step in range(len(run.schedule)):
        eircli.train(run, step)
        print(eircli.evaluate(run, step).all)
    predictor = eircli.load(run)

Errors are `eircli.common.errors.UserError` (what a user can mend, in one line) and `RunFailed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from eircli.common.progress import Say
from eircli.run.run import Run
from eircli.run.run import open_run as _open_run

if TYPE_CHECKING:
    from eircli.run.predictor import Predictor
    from eircli.run.results import StepResults

__all__ = ["build_memory", "evaluate", "load", "open_run", "results", "run_protocol", "train"]

Target = str | PathLike[str]
"""A recipe (also `FILE:RUN` of a comparison), a run directory, or its manifest.yaml."""


def _silent(line: str) -> None:
    return None


def open_run(target: Target, overrides: Sequence[str] = (), run_dir: Target | None = None) -> Run:
    """The run that a target means; nothing is created, and no data set needed, before it is worked on.

    Args:
        overrides: `key.path=value` each, as after `--set`.
        run_dir: the run directory; by default runs/NAME-seedSEED.

    Raises:
        UserError: no such recipe, a bad one, or one that contradicts what its run directory was made with.
    """
    return _open_run(Path(target), overrides, None if run_dir is None else Path(run_dir))


def _opened(run: Run | Target) -> Run:
    return run if isinstance(run, Run) else open_run(run)


def load(run: Run | Target, step: int | None = None, window: int | None = None) -> Predictor:
    """The trained model of a step, ready to predict on arrays; by default that of the last trained step. Needs no data set.

    Args:
        window: as in `Predictor`: side of the windows over large images.

    Raises:
        UserError: the step is not trained, or its checkpoint is damaged.
    """
    from eircli.run.predictor import Predictor

    opened = _opened(run)
    return Predictor(opened, opened.directory.last_trained() if step is None else step, window)


def train(run: Run | Target, step: int, again: bool = False, say: Say = _silent) -> None:
    """Train a step, with the memory it needs; a finished one is left alone unless `again`.

    Args:
        say: gets lines about what goes on. Progress is shown on stderr.

    Raises:
        UserError: the step before is not trained, or something is missing or damaged.
        RunFailed: a loss is no longer finite.
    """
    from eircli.stages.train import train as train_step

    opened = _opened(run).checked()
    with opened.locked():
        train_step(opened, step, say, again)


def build_memory(run: Run | Target, step: int, again: bool = False, say: Say = _silent) -> None:
    """Build what `step` keeps of the classes before it; `train` does that too, if it is not there.

    Raises:
        UserError: the method keeps nothing, or nothing can be kept.
    """
    from eircli.stages.build_memory import build_memory as build

    opened = _opened(run).checked()
    with opened.locked():
        build(opened, step, say, again)


def evaluate(run: Run | Target, step: int, full_size: bool = False, again: bool = False, say: Say = _silent) -> StepResults:
    """The figures of a trained step on the test images; recorded ones are read back unless `again`.

    Args:
        full_size: whole images at their own size instead of the paper's crops.

    Raises:
        UserError: the step is not trained, or something is missing or damaged.
    """
    from eircli.stages.evaluate import evaluate as evaluate_step

    opened = _opened(run).checked()
    with opened.locked():
        return evaluate_step(opened, step, say, full_size, again)


def run_protocol(run: Run | Target, say: Say = _silent) -> list[StepResults]:
    """All steps: memory, training, evaluation.

    Returns:
        The figures of every step.

    Raises:
        UserError, RunFailed: as `train` and `evaluate`.
    """
    from eircli.stages.run_protocol import run_protocol as run_steps

    opened = _opened(run).checked()
    with opened.locked():
        return run_steps(opened, say)


def results(run: Run | Target, step: int, full_size: bool = False) -> StepResults:
    """The recorded figures of a step. Needs neither data set nor torch.

    Raises:
        UserError: it is not evaluated, or its results are damaged.
    """
    from eircli.run.results import read_results

    return read_results(_opened(run).directory, step, full_size)
