"""The record of a run: what it has made so far, as it stands in its manifest.yaml."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from eircli import __version__
from eircli.common.io import sha256
from eircli.config.tree import Tree

Facts = Mapping[str, Any]
"""Plain data."""

Artifact = Literal["bank", "checkpoint", "results", "results_full_size"]

MADE_BY: dict[Artifact, str] = {
    "bank": "build-memory",
    "checkpoint": "train",
    "results": "evaluate",
    "results_full_size": "evaluate",
}
"""The command that makes each artifact."""


@dataclass(frozen=True)
class Entry:
    """A finished artifact: its file, and what made it."""

    file: str
    """Relative to the run directory."""
    size: int
    sha256: str
    made: str
    """UTC, ISO 8601."""
    eir: str
    torch: str
    python: str
    """Versions."""
    facts: Facts = field(default_factory=dict)
    """Further facts by the stage that made it: plain data."""

    @classmethod
    def of_file(cls, path: Path, run_dir: Path, facts: Facts) -> Entry:
        """The entry of a file just written."""
        return cls(
            file=str(path.relative_to(run_dir)),
            size=path.stat().st_size,
            sha256=sha256(path),
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            eir=__version__,
            torch=_version("torch"),
            python=platform.python_version(),
            facts=facts,
        )

    @classmethod
    def from_tree(cls, tree: Facts) -> Entry:
        """The entry that `to_tree` wrote."""
        own = {f.name for f in fields(cls)} - {"facts"}
        return cls(**{k: v for k, v in tree.items() if k in own}, facts={k: v for k, v in tree.items() if k not in own})

    def to_tree(self) -> Tree:
        """Plain data for the manifest: facts stand beside the other keys."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "facts"}
        return {**own, **self.facts}


Steps = dict[int, dict[Artifact, Entry]]
"""Step → artifact → its entry."""


@dataclass
class Record:
    """What a run's manifest.yaml holds beside the recipe."""

    steps: Steps = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    """The names of the data set's classes; None before a command has worked on the run."""
    label_ids: tuple[int, ...] | None = None
    """The ids that they have in the label files, where those are not 1, 2, …"""


def forget_derived(steps: Steps, step: int, artifact: Artifact, memory_needs_model: bool) -> None:
    """Drop from the record what was made from an artifact that is replaced.

    A bank is an input of its step's checkpoint and of all later banks; a checkpoint of its results, all later
    checkpoints, and all later banks if they were chosen or made by the model; results of nothing.
    """
    order = {"bank": 0, "checkpoint": 1, "results": 2, "results_full_size": 2}
    if order[artifact] == 2:
        return
    for later, recorded in steps.items():
        for name in list(recorded):
            from_model = artifact == "bank" or name != "bank" or memory_needs_model
            derived = order[name] > order[artifact] if later == step else from_model
            if later >= step and derived:
                del recorded[name]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
