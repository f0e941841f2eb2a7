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
    """Drop from the record what was made from an artifact that is replaced, and all that was made from that.

    A checkpoint is made from the checkpoint before and its step's bank, unless it was imported; a bank from the bank before, and
    from the checkpoint before if the model chooses or makes it; results from their step's checkpoint and all before it.
    """
    stale = {(step, artifact)}
    for later in range(step, max(steps) + 1):
        made = steps.get(later, {})
        for name in ORDER:
            inputs = _inputs(later, name, made.get(name), memory_needs_model)
            if (later, name) not in stale and not stale.isdisjoint(inputs):
                stale.add((later, name))
                made.pop(name, None)


ORDER: tuple[Artifact, ...] = ("bank", "checkpoint", "results", "results_full_size")
"""The artifacts of a step, each after those that it is made from."""


def _inputs(step: int, artifact: Artifact, entry: Entry | None, memory_needs_model: bool) -> list[tuple[int, Artifact]]:
    """What an artifact is made from, each a step and what it made."""
    if artifact == "bank":
        before: list[tuple[int, Artifact]] = [(step - 1, "bank"), (step - 1, "checkpoint")]
        return before if memory_needs_model else before[:1]
    if artifact == "checkpoint":
        return [] if is_imported(entry) else [(step, "bank"), (step - 1, "checkpoint")]
    return [(before, "checkpoint") for before in range(step + 1)]


def is_imported(entry: Entry | None) -> bool:
    """Whether a recorded checkpoint was not trained here."""
    return entry is not None and "imported" in entry.facts


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
