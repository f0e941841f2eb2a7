"""What can be said of a run without working on it: `eir show-step`, `eir status`, recorded results. Imports no torch."""

from __future__ import annotations

import json
from typing import Any, cast

from eircli.data.step_view import class_counts
from eircli.run.run import Workbench
from eircli.run.rundir import Artifact

Results = dict[str, Any]
"""The figures of an evaluated step, as in its results.json."""


def read_results(bench: Workbench, step: int, full_size: bool = False) -> Results:
    """The recorded results of a step."""
    path = bench.run.verify(step, "results_full_size" if full_size else "results")
    return cast(Results, json.loads(path.read_text(encoding="utf-8")))


def recorded_results(bench: Workbench) -> list[Results] | None:
    """The results of every step of a finished run; None if anything of it is still to do."""
    if status(bench)["next"] is not None:
        return None
    return [read_results(bench, step) for step in range(len(bench.schedule))]


def status(bench: Workbench) -> dict[str, Any]:
    """Which stages of each step are done, and the next command."""
    run, steps, following = bench.run, [], None
    for step in range(len(bench.schedule)):
        wanted: list[tuple[str, Artifact]] = [("train", "checkpoint"), ("evaluate", "results")]
        if step > 0 and bench.manifest.keeps:
            wanted.insert(0, ("build-memory", "bank"))
        done = {artifact: run.done(step, artifact) for _, artifact in wanted}
        recorded = run.steps.get(step, {})
        partial = run.resume_file(step).exists()
        steps.append(
            {"step": step, "done": done, "unfinished": partial, "made": {a: recorded[a]["made"] for a in done if done[a]}}
        )
        missing = [command for command, artifact in wanted if not done[artifact]]
        if following is None and missing:
            following = f"eir {missing[0]} {run.name} --step {step}"
    return {
        "name": bench.manifest.name,
        "run_dir": str(run.path),
        "method": bench.manifest.method.name,
        "steps": steps,
        "next": following,
    }


def describe_step(bench: Workbench, step: int) -> dict[str, Any]:
    """A step's classes by name, and for each part its images and how many of them hold each class seen so far."""
    bench.check_step(step)
    parts = {}
    for part in ("train", "val", "test"):
        index = bench.train_index if part == "train" else bench.val_index
        positions = bench.positions(step, part)
        counted = class_counts(index, positions, bench.schedule.seen(step))
        parts[part] = {"images": len(positions), "per_class": {bench.class_name(c): n for c, n in counted.items()}}
    return {
        "step": step,
        "steps": len(bench.schedule),
        "setting": bench.manifest.protocol.setting,
        "new": {c: bench.class_name(c) for c in bench.schedule.new(step)},
        "old": {c: bench.class_name(c) for c in bench.schedule.old(step)},
        "parts": parts,
    }
