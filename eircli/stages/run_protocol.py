"""`eir run-protocol`: all steps in order."""

from __future__ import annotations

from eircli.common.progress import Say
from eircli.run.main_process import is_done
from eircli.run.record import is_imported
from eircli.run.results import StepResults
from eircli.run.run import Run
from eircli.stages.build_memory import build_memory
from eircli.stages.evaluate import evaluate
from eircli.stages.train import check_settings, train


def run_protocol(run: Run, say: Say) -> list[StepResults]:
    """Build memory, train and evaluate every step; what is recorded and intact is not done again.

    At the end the memory for one more step is built, so that the run can be extended when its images are gone (`eir extend`).

    A run with an imported checkpoint begins with that step: nothing before it is made.
    """
    results, kind, first = [], run.manifest.memory_kind, run.directory.first_step
    for step in range(first, len(run.schedule)):
        check_settings(run, step)
    if first:
        say(f"step {first}'s checkpoint is imported: the run begins there")
    for step in range(first, len(run.schedule)):
        if step > first and kind is not None and not is_done(run, step, "bank"):
            build_memory(run, step, say)
        if not is_done(run, step, "checkpoint"):
            train(run, step, say)
        if step > first or not is_imported(run.directory.entry(step, "checkpoint")) or len(run.positions(step, "test")):
            results.append(evaluate(run, step, say))
        else:
            say(f"step {step}: no test image holds its classes")
    if kind is not None and not is_done(run, len(run.schedule), "bank"):
        build_memory(run, len(run.schedule), say)
    return results
