"""`eir compare`: runs grouped over their seeds and held against each other. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from scipy import stats

from eircli.common.errors import UserError
from eircli.common.types import BACKGROUND
from eircli.config.fingerprint import seedless_fingerprint
from eircli.reports.show import Results, read_results
from eircli.run.run import Workbench

FIGURES = ("old", "new", "all", "average", "forgetting")
"""Old and new classes' mean IoU, that of all, its average over the steps so far, and the old classes' mean loss."""

CONFIDENCE = 0.95

Summary = dict[str, Any]


def compare(benches: Sequence[Workbench], against: str | None = None) -> dict[str, Any]:
    """The runs' figures, mean and deviation over seeds, best first by `all` after the last step; and paired differences.

    Joint training has no later steps: its old and new are counted over the classes that are old and new to the other runs,
    if these agree on them.

    Args:
        against: name of the group that the others are held against; the best one if None.

    Raises:
        UserError: a step without results, runs that end with other classes, or an unknown name.
    """
    results = [_every_step(bench) for bench in benches]
    _check_alike(benches, results)
    borrowed = _base_of_stepwise_runs(results)
    groups: dict[tuple[str, str], list[int]] = {}
    for number in sorted(range(len(benches)), key=lambda n: benches[n].manifest.seed):
        manifest = benches[number].manifest
        groups.setdefault((manifest.name, seedless_fingerprint(manifest)), []).append(number)
    rows = []
    for (name, _), numbers in groups.items():
        runs = {benches[n].manifest.seed: _figures(results[n], borrowed) for n in numbers}
        if len(runs) < len(numbers):
            raise UserError(f"{name}: the same seed twice; give each run once")
        rows.append(_group(name, [benches[n] for n in numbers], list(runs.values())))
    rows.sort(key=lambda row: -(row["steps"][-1]["all"]["mean"] or 0.0))
    names = [row["name"] for row in rows]
    if against is not None and against not in names:
        raise UserError(f"--against: there is no run named {against} here; there are {', '.join(names)}")
    reference = rows[names.index(against)] if against else rows[0]
    for row in rows:
        row["difference"] = None if row is reference else _paired(row, reference)
    return {"against": reference["name"], "confidence": CONFIDENCE, "runs": rows}


def _every_step(bench: Workbench) -> list[Results]:
    for step in range(len(bench.schedule)):
        if not bench.run.done(step, "results"):
            raise UserError(f"{bench.run.path}: step {step} has no results yet; run: eir run-protocol {bench.run.name}")
    return [read_results(bench, step) for step in range(len(bench.schedule))]


def _check_alike(benches: Sequence[Workbench], results: Sequence[Sequence[Results]]) -> None:
    """Only figures of the same kind stand in one table."""
    kinds = [
        {
            "classes at the end": sorted(c["id"] for c in steps[-1]["classes"]),
            "test images": steps[-1]["images"],
            "size of evaluation": steps[-1]["size"],
            "evaluate.absent_class": steps[-1]["absent_class"],
        }
        for steps in results
    ]
    for bench, kind in zip(benches, kinds, strict=True):
        if wrong := [what for what in kind if kind[what] != kinds[0][what]]:
            raise UserError(f"{bench.run.path} and {benches[0].run.path} cannot be compared: they differ in {', '.join(wrong)}")


def _base_of_stepwise_runs(results: Sequence[Sequence[Results]]) -> frozenset[int] | None:
    """The ids of the first step, of runs with more than one step if they agree on them; None if not, or without such."""
    bases = {frozenset(row["id"] for row in steps[0]["classes"]) for steps in results if len(steps) > 1}
    return bases.pop() if len(bases) == 1 else None


def _figures(steps: Sequence[Results], borrowed: frozenset[int] | None) -> list[dict[str, float | None]]:
    """The figures of every step of a run, all from the classes' IoUs.

    Old are background and the run's own base classes; a run of a single step borrows the other runs'.
    """
    ious = [{row["id"]: row["iou"] for row in step["classes"]} for step in steps]
    base = borrowed if len(steps) == 1 and borrowed else frozenset(ious[0])
    figures = []
    for number, (step, now) in enumerate(zip(steps, ious, strict=True)):
        best = {
            c: max((past[c] for past in ious[:number] if past.get(c) is not None), default=None) for c in now if c != BACKGROUND
        }
        lost = [best[c] - iou for c, iou in now.items() if c in best and best[c] is not None and iou is not None]
        figures.append(
            {
                "old": _mean(iou for c, iou in now.items() if c in base),
                "new": _mean(iou for c, iou in now.items() if c not in base),
                "all": step["all"],
                "average": _mean(past["all"] for past in steps[: number + 1]),
                "forgetting": _mean(lost),
            }
        )
    return figures


def _group(name: str, benches: Sequence[Workbench], runs: Sequence[Sequence[Mapping[str, float | None]]]) -> Summary:
    """The runs of one group, in order of their seeds."""
    manifest = benches[0].manifest
    last = len(benches[0].schedule) - 1
    sizes = [entry["bytes"] for bench in benches if (entry := bench.run.steps.get(last, {}).get("bank"))]
    return {
        "name": name,
        "method": manifest.method.name,
        "seeds": [bench.manifest.seed for bench in benches],
        "run_dirs": [str(bench.run.path) for bench in benches],
        "budget": manifest.memory.budget if manifest.keeps in ("instances", "images") else None,
        "memory_bytes": _summary(sizes) if sizes else None,
        "steps": [{figure: _summary([run[step][figure] for run in runs]) for figure in FIGURES} for step in range(last + 1)],
    }


def _summary(values: Sequence[float | None]) -> Summary:
    """Mean, sample standard deviation (None of one value) and the values themselves, in order of the seeds."""
    there = [value for value in values if value is not None]
    deviation = stdev(there) if len(there) > 1 else None
    return {"mean": fmean(there) if there else None, "sd": deviation, "values": list(values)}


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return fmean(there) if there else None


def _paired(row: Summary, reference: Summary) -> Summary | None:
    """The mean difference of `all` after the last step over the seeds both have, with its interval by Student's t."""
    seeds = [seed for seed in row["seeds"] if seed in reference["seeds"]]
    ours, theirs = (dict(zip(r["seeds"], r["steps"][-1]["all"]["values"], strict=True)) for r in (row, reference))
    differences = [ours[seed] - theirs[seed] for seed in seeds]
    if not differences:
        return None
    mean, half = fmean(differences), None
    if len(differences) > 1:
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1)) * stdev(differences) / len(differences) ** 0.5
    interval = None if half is None else [mean - half, mean + half]
    return {"seeds": seeds, "mean": mean, "interval": interval, "values": differences}
