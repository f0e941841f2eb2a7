"""`eir compare`: runs grouped over their seeds and compared. Imports no torch, needs no data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

from scipy import stats

from eircli.common.errors import UserError
from eircli.common.types import BACKGROUND
from eircli.config.fingerprint import seedless_fingerprint
from eircli.run.record import is_imported
from eircli.run.results import StepResults, read_results
from eircli.run.run import Run

FIGURES = ("old", "new", "all", "average", "forgetting")
"""Old and new classes' mean IoU, that of all, its average over the steps so far, and the old classes' mean loss."""

CONFIDENCE = 0.95

Figures = dict[str, float | None]
"""`FIGURES` of one step of one run."""


@dataclass(frozen=True)
class Summary:
    """A figure over the seeds."""

    mean: float | None
    sd: float | None
    """The sample standard deviation; None for a single value."""
    values: list[float | None]
    """In order of the seeds."""


@dataclass(frozen=True)
class Difference:
    """How two groups differ in `all` after the last step, paired by seed."""

    seeds: list[int]
    """Those that both have."""
    mean: float
    interval: list[float] | None
    """Low and high end of the confidence interval by Student's t; None for a single pair."""
    values: list[float]


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed."""

    name: str
    method: str
    seeds: list[int]
    run_dirs: list[str]
    budget: int | str | None
    """None for kinds without a budget."""
    memory_bytes: Summary | None
    """Of the exemplars after the last step."""
    steps: list[dict[str, Summary]]
    """Step → figure → its summary."""
    difference: Difference | None = None
    """To the reference group; None for that one."""


@dataclass(frozen=True)
class Comparison:
    """Groups of runs, best first."""

    against: str
    """The name of the reference group."""
    confidence: float
    """Of the differences' intervals."""
    runs: list[Group]


def compare(runs: Sequence[Run], against: str | None = None) -> Comparison:
    """The runs' figures, mean and deviation over seeds, best first by `all` after the last step; and paired differences.

    Joint training has no later steps: its old and new are counted over the classes that are old and new to the other runs,
    if these agree on them.

    Args:
        against: name of the reference group; the best one if None.

    Raises:
        UserError: a step without results, runs that end with other classes, or an unknown name.
    """
    results = [_every_step(run) for run in runs]
    _check_alike(runs, results)
    borrowed = _base_of_stepwise_runs(results)
    members: dict[tuple[str, str], list[int]] = {}
    for number in sorted(range(len(runs)), key=lambda n: runs[n].manifest.seed):
        manifest = runs[number].manifest
        members.setdefault((manifest.name, seedless_fingerprint(manifest)), []).append(number)
    groups = []
    for (name, _), numbers in members.items():
        figures = {runs[n].manifest.seed: _figures(results[n], borrowed) for n in numbers}
        if len(figures) < len(numbers):
            raise UserError(f"{name}: the same seed twice; give each run once")
        groups.append(_group(name, [runs[n] for n in numbers], list(figures.values())))
    groups = _told_apart(groups)
    groups.sort(key=lambda group: -(group.steps[-1]["all"].mean or 0.0))
    names = [group.name for group in groups]
    if against is not None and against not in names:
        raise UserError(f"--against: there is no run named {against} here; there are {', '.join(names)}")
    reference = groups[names.index(against)] if against else groups[0]
    compared = [group if group is reference else replace(group, difference=_paired(group, reference)) for group in groups]
    return Comparison(reference.name, CONFIDENCE, compared)


def _every_step(run: Run) -> list[StepResults]:
    """The results of every step, from that on which the run begins with."""
    first, directory = run.directory.first_step, run.directory
    imported = is_imported(directory.entry(first, "checkpoint"))  # may know no class of the test images
    steps = range(first + (imported and not directory.done(first, "results")), len(run.schedule))
    for step in steps:
        if not run.directory.done(step, "results"):
            raise UserError(f"{run.directory.path}: step {step} has no results yet; run: eir run-protocol {run.directory.name}")
    return [read_results(run.directory, step) for step in steps]


def _check_alike(runs: Sequence[Run], results: Sequence[Sequence[StepResults]]) -> None:
    """Refuse runs whose figures are not comparable."""
    kinds = [
        {
            "classes at the end": sorted(c.id for c in steps[-1].classes),
            "test images": steps[-1].images,
            "size of evaluation": steps[-1].size,
            "evaluate.absent_class": steps[-1].absent_class,
        }
        for steps in results
    ]
    for run, kind in zip(runs, kinds, strict=True):
        if wrong := [what for what in kind if kind[what] != kinds[0][what]]:
            one, other = run.directory.path, runs[0].directory.path
            raise UserError(f"{one} and {other} cannot be compared: they differ in {', '.join(wrong)}")


def _base_of_stepwise_runs(results: Sequence[Sequence[StepResults]]) -> frozenset[int] | None:
    """Base-step class ids shared by all multi-step runs; else None."""
    bases = {frozenset(row.id for row in steps[0].classes) for steps in results if len(steps) > 1}
    return bases.pop() if len(bases) == 1 else None


def _figures(steps: Sequence[StepResults], borrowed: frozenset[int] | None) -> list[Figures]:
    """The figures of every step of a run, all from the classes' IoUs.

    Old are background and the run's own base classes; a run of a single step uses the other runs' base classes.
    """
    ious = [{row.id: row.iou for row in step.classes} for step in steps]
    base = borrowed if len(steps) == 1 and borrowed else frozenset(ious[0])
    figures: list[Figures] = []
    for number, (step, now) in enumerate(zip(steps, ious, strict=True)):
        figures.append(
            {
                "old": _mean(iou for c, iou in now.items() if c in base),
                "new": _mean(iou for c, iou in now.items() if c not in base),
                "all": step.all,
                "average": _mean(past.all for past in steps[: number + 1]),
                "forgetting": _mean(_lost(now, ious[:number])),
            }
        )
    return figures


def _lost(now: dict[int, float | None], before: Sequence[dict[int, float | None]]) -> list[float]:
    """What each class but background has lost against the best IoU it ever had."""
    lost = []
    for class_id, iou in now.items():
        past = [value for step in before if (value := step.get(class_id)) is not None]
        if class_id != BACKGROUND and iou is not None and past:
            lost.append(max(past) - iou)
    return lost


def _group(name: str, runs: Sequence[Run], figures: Sequence[Sequence[Figures]]) -> Group:
    """The runs of one group, in order of their seeds."""
    manifest = runs[0].manifest
    last = len(runs[0].schedule) - 1
    sizes = [entry.facts["bytes"] for run in runs if (entry := run.directory.entry(last, "bank"))]
    return Group(
        name=name,
        method=manifest.method.name,
        seeds=[run.manifest.seed for run in runs],
        run_dirs=[str(run.directory.path) for run in runs],
        budget=manifest.memory.budget if manifest.memory_kind is not None and manifest.memory_kind.bounded else None,
        memory_bytes=_summary(sizes) if sizes else None,
        steps=[
            {figure: _summary([run[step][figure] for run in figures]) for figure in FIGURES} for step in range(len(figures[0]))
        ],
    )


def _told_apart(groups: Sequence[Group]) -> list[Group]:
    """The groups; of several that share a name each with its run directory's, without the seed."""
    names = [group.name for group in groups]
    return [
        replace(group, name=Path(group.run_dirs[0]).name.removesuffix(f"-seed{group.seeds[0]}"))
        if names.count(group.name) > 1
        else group
        for group in groups
    ]


def _summary(values: Sequence[float | None]) -> Summary:
    there = [value for value in values if value is not None]
    return Summary(fmean(there) if there else None, stdev(there) if len(there) > 1 else None, list(values))


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return fmean(there) if there else None


def _paired(group: Group, reference: Group) -> Difference | None:
    """The mean difference over the seeds both have, with its interval by Student's t; None if there are none."""
    ours, theirs = (dict(zip(g.seeds, g.steps[-1]["all"].values, strict=True)) for g in (group, reference))
    pairs = {seed: (ours[seed], theirs[seed]) for seed in group.seeds if seed in theirs}
    differences = [one - other for one, other in pairs.values() if one is not None and other is not None]
    if not differences:
        return None
    middle, half = fmean(differences), None
    if len(differences) > 1:
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1)) * stdev(differences) / len(differences) ** 0.5
    interval = None if half is None else [middle - half, middle + half]
    return Difference(list(pairs), middle, interval, differences)
