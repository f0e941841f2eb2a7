"""`eir show-step` and `eir status`: what a step consists of, and how far a run is. Imports no torch."""

from __future__ import annotations

from typing import Any

from eircli.data.step_view import class_counts
from eircli.rundir import Artifact
from eircli.workbench import Workbench


def status(bench: Workbench) -> dict[str, Any]:
    """Which stages of each step are done, and the next command."""
    run, steps, following = bench.run, [], None
    for step in range(len(bench.schedule)):
        wanted: list[tuple[str, Artifact]] = [("train", "checkpoint"), ("evaluate", "results")]
        if step > 0 and bench.manifest.replays:
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
