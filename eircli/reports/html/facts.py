"""What a report tells of a run, read from its directory: what is there, and the names of what is missing."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eircli.common.errors import UserError
from eircli.common.io import whole_lines
from eircli.reports.status import NEEDED, RunStatus, status
from eircli.run.record import MADE_BY
from eircli.run.results import StepResults, read_results
from eircli.run.run import Run


@dataclass(frozen=True)
class Training:
    """What a step's journal says, by iteration."""

    losses: dict[str, list[tuple[float, float]]]
    """Name → iteration and value."""
    rate: list[tuple[float, float]]
    """Iteration and learning rate."""


@dataclass(frozen=True)
class RunFacts:
    """What a report tells of a run."""

    run: Run
    status: RunStatus
    results: dict[int, StepResults]
    """Of the steps that have any."""
    full_size: dict[int, StepResults]
    """Of whole images at their own size."""
    training: dict[int, Training]
    """Of the steps that have a journal."""
    missing: list[str]
    """What a finished run would have, in words."""

    @property
    def trained(self) -> list[int]:
        """The steps whose model is there."""
        return [row.step for row in self.status.steps if row.done["checkpoint"]]

    @property
    def banks(self) -> list[int]:
        """The steps whose memory is there."""
        return [row.step for row in self.status.steps if row.done.get("bank")]

    @property
    def last(self) -> StepResults | None:
        """The results of the last step that has any."""
        return self.results[max(self.results)] if self.results else None


def read_facts(run: Run) -> RunFacts:
    """All but the pictures; needs neither torch nor the data set.

    Raises:
        UserError: nothing was ever made, or a file is damaged.
    """
    directory = run.directory
    if not directory.manifest_path.is_file():
        raise UserError(f"{directory.path}: no such run yet; run: eir run-protocol {directory.name}")
    found = status(run)
    steps = [row.step for row in found.steps]
    return RunFacts(
        run=run,
        status=found,
        results={step: read_results(directory, step) for step in steps if directory.done(step, "results")},
        full_size={step: read_results(directory, step, True) for step in steps if directory.done(step, "results_full_size")},
        training={step: read_training(directory.journal(step)) for step in steps if whole_lines(directory.journal(step))},
        missing=[line for step in steps for line in _missing(run, found, step)],
    )


def _missing(run: Run, found: RunStatus, step: int) -> list[str]:
    row, lines = next(row for row in found.steps if row.step == step), []
    for artifact in (artifact for artifact in NEEDED if not row.done.get(artifact, True)):
        what = {"bank": "memory"}.get(artifact, artifact)
        entry = run.directory.entry(step, artifact)
        if entry is not None:
            lines.append(f"step {step}: {what}: {entry.file} is recorded, but no longer there")
        elif artifact == "checkpoint" and row.unfinished:
            lines.append(f"step {step}: training was begun and is not finished")
        else:
            lines.append(f"step {step}: no {what} yet (eir {MADE_BY[artifact]})")
    return lines


def read_training(path: Path) -> Training:
    """The losses and learning rates of a journal.

    Raises:
        UserError: it is no journal.
    """
    losses: dict[str, list[tuple[float, float]]] = defaultdict(list)
    rate = []
    try:
        for line in whole_lines(path):
            entry = json.loads(line)
            rate.append((entry["iteration"], entry["lr"]))
            for name, value in entry["losses"].items():
                losses[name].append((entry["iteration"], value))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: is no journal of a training; delete it, or train the step again") from None
    return Training(dict(losses), rate)


def read_confusion(run: Run, results: StepResults) -> NDArray[np.int64] | str:
    """The confusion matrix int64 [K, K] of an evaluated step, rows truth; or what is wrong with its file, which is not recorded."""
    path = run.directory.file(results.step, "confusion.csv")
    names = [row.name for row in results.classes]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        counts = np.array([[int(cell) for cell in row[1:]] for row in rows], np.int64)
    except FileNotFoundError:
        return f"{path} is not there; eir evaluate with --again writes it"
    except (OSError, ValueError):
        return f"{path} is no table of counts; eir evaluate with --again writes it anew"
    agrees = header[1:] == names and counts.shape == (len(names), len(names))
    if not agrees or counts.sum(axis=1).tolist() != [row.pixels for row in results.classes]:
        return f"{path} is of another evaluation than the results; eir evaluate with --again writes both"
    return counts
