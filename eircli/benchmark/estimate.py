"""How long a recipe takes, by what a step, an evaluation and the data pipeline were measured to cost."""

from __future__ import annotations

from typing import NamedTuple

from eircli.benchmark.report import Estimate, StepEstimate
from eircli.data.training_set import replayed_places
from eircli.run.run import Run


class Speeds(NamedTuple):
    """Seconds per image."""

    base: float
    """Of training in the base step."""
    incremental: float
    """Of training in a later step, by EIR."""
    evaluate: float
    """Of the network's pass and the prediction."""
    load: float
    """Of the data loader: if slower than compute, it bounds throughput."""


def estimate(run: Run, speeds: Speeds, precision: str) -> Estimate:
    """How long a recipe takes with these speeds.

    Raises:
        UserError: the data set is not there.
    """
    steps = []
    for step in range(len(run.schedule)):
        config = run.manifest.training(step)
        new = len(run.positions(step, "train"))
        samples = new + (_replayed(run, new) if step else 0)
        images = config.iterations * config.batch_size if config.iterations else (config.epochs or 0) * samples
        tests = len(run.positions(step, "test"))
        train = images * max(speeds.incremental if step else speeds.base, speeds.load)
        test = tests * max(speeds.evaluate, speeds.load)
        steps.append(StepEstimate(step, samples, round(images), tests, (train + test) / 3600))
    return Estimate(steps, sum(step.hours for step in steps), precision)


def _replayed(run: Run, new: int) -> int:
    """Samples of their own that the memory adds to a pass over `new` new ones, where its budget is a count."""
    kind, limit = run.manifest.memory_kind, run.manifest.memory.limit
    adds = kind is not None and kind.bounded and run.manifest.method.replays_samples
    count = limit.amount if adds and limit.unit == "exemplars" else 0
    return replayed_places(new, count, run.manifest.method.largest_replay_share)
