"""How long a recipe takes, by what a step, an evaluation and the data pipeline were measured to cost."""

from __future__ import annotations

from typing import Any, NamedTuple

from eircli.run.run import Workbench


class Speeds(NamedTuple):
    """Seconds per image."""

    base: float
    """Of training in the base step."""
    incremental: float
    """Of training in a later step."""
    evaluate: float
    """Of the network's pass and the prediction."""
    load: float
    """Of the data loader: where it is slower than the rest, the rest waits."""


def estimate(bench: Workbench, speeds: Speeds) -> dict[str, Any]:
    """Hours of every step of a recipe, and in all."""
    steps = []
    for step in range(len(bench.schedule)):
        config = bench.manifest.training(step)
        samples = len(bench.positions(step, "train")) + (_replayed(bench) if step else 0)
        images = config.iterations * config.batch_size if config.iterations else (config.epochs or 0) * samples
        tests = len(bench.positions(step, "test"))
        train = images * max(speeds.incremental if step else speeds.base, speeds.load)
        test = tests * max(speeds.evaluate, speeds.load)
        steps.append(
            {
                "step": step,
                "samples": samples,
                "trained_images": round(images),
                "test_images": tests,
                "hours": (train + test) / 3600,
            }
        )
    return {"steps": steps, "hours": sum(float(step["hours"]) for step in steps)}


def _replayed(bench: Workbench) -> int:
    """Samples of their own that the memory adds, where its budget is a count."""
    limit = bench.manifest.memory.limit
    adds = bench.manifest.keeps in ("instances", "images") and getattr(bench.manifest.method, "standalone_replay", True)
    return limit.amount if adds and limit.unit == "exemplars" else 0
