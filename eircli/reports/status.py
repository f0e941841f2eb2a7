"""`eir status`: what of a run is done, and what is next. Needs no data set where the class names are known without it."""

from __future__ import annotations

from dataclasses import dataclass

from eircli.run.record import MADE_BY, Artifact, is_imported
from eircli.run.results import StepResults, read_results
from eircli.run.run import Run


@dataclass(frozen=True)
class StepStatus:
    """Which artifacts of a step are done."""

    step: int
    done: dict[Artifact, bool]
    """Of those that the step needs."""
    unfinished: bool
    """Whether its training was begun and can be resumed."""
    made: dict[Artifact, str]
    """When, of those that are done."""


@dataclass(frozen=True)
class RunStatus:
    """Which artifacts of each step are done, and the next command."""

    name: str
    run_dir: str
    method: str
    steps: list[StepStatus]
    next: str | None
    """None once everything is done."""


NEEDED: tuple[Artifact, ...] = ("bank", "checkpoint", "results")
"""The artifacts of a finished step, in the order in which they are made."""


def status(run: Run) -> RunStatus:
    """What of a run is done, each file checked against the record; from the step on that it begins with.

    Raises:
        UserError: a file is damaged, or the class names can be had neither from the record nor from the data set.
    """
    steps: list[StepStatus] = []
    following = None
    first = run.directory.first_step
    for step in range(first, len(run.schedule)):
        needed = [artifact for artifact in NEEDED if artifact != "bank" or (step > first and run.manifest.memory_kind)]
        if is_imported(run.directory.entry(step, "checkpoint")):  # it may know no class of the test images
            needed = ["checkpoint"]
        done = {artifact: run.directory.done(step, artifact) for artifact in needed}
        made = {artifact: run.directory.steps[step][artifact].made for artifact in needed if done[artifact]}
        steps.append(StepStatus(step, done, run.directory.resume_file(step).exists(), made))
        missing = [MADE_BY[artifact] for artifact in needed if not done[artifact]]
        if following is None and missing:
            following = f"eir {missing[0]} {run.directory.name} --step {step}"
    return RunStatus(run.manifest.name, str(run.directory.path), run.manifest.method.name, steps, following)


def recorded_results(run: Run) -> list[StepResults] | None:
    """The results of every step of a finished run, from that on which it begins with; None if anything of it is still to do."""
    if status(run).next is not None:
        return None
    first = run.directory.first_step
    return [read_results(run.directory, step) for step in range(first, len(run.schedule)) if run.directory.done(step, "results")]
