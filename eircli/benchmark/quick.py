"""About how long a recipe takes on this machine, from a few seconds of its own training steps."""

from __future__ import annotations

from eircli.benchmark.estimate import Speeds, estimate
from eircli.benchmark.parts import sample_case
from eircli.benchmark.report import Estimate
from eircli.benchmark.settings import settings_for
from eircli.benchmark.steps import step_cases
from eircli.benchmark.suite import classes_of, without_weights
from eircli.common.progress import Say
from eircli.run.run import Run

SECONDS = 1.0
"""Approximate seconds per measurement, of which there are four."""


def quick_estimate(run: Run, say: Say) -> Estimate:
    """The hours of a recipe's steps, by its network, crop, method and images.

    Raises:
        UserError: the data set is not there, or the recipe's device.
    """
    settings = settings_for(run, None, None, SECONDS, False, say)
    cases = step_cases(without_weights(run), classes_of(run), settings.batch, settings.compute, False)[:3]
    incremental, fine_tuning, forward = (row.milliseconds / 1000 / settings.batch for row in settings.costs(cases))
    (sample,) = settings.costs([sample_case(run)])
    speeds = Speeds(fine_tuning, incremental, forward, sample.milliseconds / 1000 / max(run.workers, 1))
    return estimate(run, speeds, str(settings.compute.dtype).removeprefix("torch."))
