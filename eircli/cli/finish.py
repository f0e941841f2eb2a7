"""Bringing runs to their end, for the commands that need finished ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eircli.cli.options import say
from eircli.common.torchrun_env import launched

if TYPE_CHECKING:
    from eircli.run.results import StepResults
    from eircli.run.run import Run


def finish(runs: Sequence[Run], announce: bool = False) -> list[list[StepResults]]:
    """The results of every step of runs, which are first run to their end; what is to do is checked before anything is done.

    Args:
        announce: say which run is at work.
    """
    from eircli.reports.status import recorded_results

    # Several processes must agree on what is done, which `run_protocol` sees to.
    known = [recorded_results(run) if launched().processes == 1 else None for run in runs]
    for run, results in zip(runs, known, strict=True):
        if results is None:
            run.checked()
    found = []
    for number, (run, results) in enumerate(zip(runs, known, strict=True), start=1):
        if announce:
            say(f"{number} of {len(runs)}: {run.directory.path}")
        found.append(_run(run) if results is None else results)
    return found


def _run(run: Run) -> list[StepResults]:
    from eircli.run.main_process import locked_by_main
    from eircli.stages.run_protocol import run_protocol

    with locked_by_main(run):
        return run_protocol(run, say)
