"""A run directory: where everything lies, the record of finished stages, atomic writes, one writer at a time.

RUN/manifest.yaml                       the resolved recipe and the record `steps:`
RUN/step-0/{model.pt, resume.pt, journal.jsonl, results.json, confusion.csv}
RUN/step-1/{bank.h5, model.pt, …}
"""

from __future__ import annotations

import platform
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import yaml
from filelock import FileLock, Timeout

from eircli import __version__
from eircli.common.errors import UserError
from eircli.common.io import sha256, write_text
from eircli.config.fingerprint import differing_keys, to_tree
from eircli.config.manifest import Manifest
from eircli.config.recipe import load_recipe, resolve
from eircli.config.tree import load_yaml

Record = dict[int, dict[str, dict[str, Any]]]
"""Step → artifact → what is recorded of it."""

Artifact = Literal["bank", "checkpoint", "results", "results_full_size"]

HEADER = "# Written by eir: the resolved recipe of this run and, under `steps`, what it has made so far.\n"


class RunDir:
    """One run directory with its manifest. Reading needs no lock; writing is done inside `locked()`."""

    def __init__(self, path: Path, manifest: Manifest, opened_by: str) -> None:
        self.path = path
        self.manifest = manifest
        self._opened_by = opened_by
        self._steps: Record | None = None

    @property
    def name(self) -> str:
        """What to give a command to mean this run: the run directory once it holds something; before, what opened it."""
        return str(self.path) if any(self.path.glob("step-*")) else self._opened_by

    @property
    def manifest_path(self) -> Path:
        return self.path / "manifest.yaml"

    def step_path(self, step: int) -> Path:
        return self.path / f"step-{step}"

    def file(self, step: int, name: str) -> Path:
        return self.step_path(step) / name

    def checkpoint(self, step: int) -> Path:
        return self.file(step, "model.pt")

    def resume_file(self, step: int) -> Path:
        return self.file(step, "resume.pt")

    def bank(self, step: int) -> Path:
        return self.file(step, "bank.h5")

    def journal(self, step: int) -> Path:
        return self.file(step, "journal.jsonl")

    def results(self, step: int, full_size: bool = False) -> Path:
        return self.file(step, "results-full-size.json" if full_size else "results.json")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for writing; its directory is made, and unmade if the block fails before it made anything.

        The system drops the lock when its holder dies, however it dies.
        """
        is_new = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{self.path}: another eir process is working on this run; wait for it or end it") from None
        try:
            for leftover in self.path.glob("**/.*.part"):
                leftover.unlink()
            self._settle()
            yield
        except UserError:
            if is_new and not list(self.path.glob("step-*")):
                shutil.rmtree(self.path)
            raise
        finally:
            lock.release()

    def _settle(self) -> None:
        """Create the manifest, or see to it that it is the same recipe."""
        if self.manifest_path.exists():
            recorded, self._steps = read_manifest(self.manifest_path)
            _refuse_differing(recorded, self.manifest, self.path)
        else:
            self._steps = {}
        self._write(self._steps)

    def _write(self, steps: Record) -> None:
        self._steps = steps
        tree = to_tree(self.manifest) | {"steps": steps}
        write_text(
            self.manifest_path, HEADER + yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, allow_unicode=True)
        )

    @property
    def steps(self) -> Record:
        """The record: step → artifact → file, size, sha256, made, versions."""
        if self._steps is None:  # read once: while the run is held, nobody else changes it
            self._steps = read_manifest(self.manifest_path)[1] if self.manifest_path.exists() else {}
        return self._steps

    def adopt(self, steps: Record) -> None:
        """Take the record for what another process says that it is."""
        self._steps = steps

    def record(self, step: int, artifact: Artifact, path: Path, **facts: object) -> None:
        """Enter a finished artifact; what was made from an earlier version of it is dropped from the record."""
        steps = self.steps
        entry = {
            "file": str(path.relative_to(self.path)),
            "size": path.stat().st_size,
            "sha256": sha256(path),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "eir": __version__,
            "torch": _version("torch"),
            "python": platform.python_version(),
            **facts,
        }
        recorded = steps.setdefault(step, {})
        if recorded.get(artifact, {}).get("sha256") != entry["sha256"]:
            _forget_derived(steps, step, artifact, self.manifest.memory_needs_model)
        recorded[artifact] = entry
        self._write(dict(sorted(steps.items())))

    def done(self, step: int, artifact: Artifact) -> bool:
        """Whether the artifact is recorded, there and intact.

        Raises:
            UserError: it is there but damaged.
        """
        entry = self.steps.get(step, {}).get(artifact)
        return entry is not None and (self.path / entry["file"]).is_file() and self.verify(step, artifact).is_file()

    def verify(self, step: int, artifact: Artifact) -> Path:
        """The artifact's path, after its content has been checked against the record.

        Raises:
            UserError: not recorded, missing, or damaged.
        """
        entry = self.steps.get(step, {}).get(artifact)
        if entry is None:
            raise UserError(f"{self.path}: step {step} has no {artifact} yet; {_how_to_make(artifact, self.name, step)}")
        path: Path = self.path / entry["file"]
        if not path.is_file():
            raise UserError(f"{path}: recorded but missing; {_how_to_make(artifact, self.name, step)}")
        if path.stat().st_size != entry["size"] or sha256(path) != entry["sha256"]:
            raise UserError(
                f"{path}: damaged (not the recorded sha256); delete it, then {_how_to_make(artifact, self.name, step)}"
            )
        return path


def _forget_derived(steps: Record, step: int, artifact: Artifact, memory_needs_model: bool) -> None:
    """Drop from the record what was made from an artifact that is replaced.

    A bank goes into its step's checkpoint and into all later banks; a checkpoint into its results, all later
    checkpoints, and all later banks if they were chosen or made by the model; results into nothing.
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


def read_manifest(path: Path) -> tuple[Manifest, Record]:
    """The manifest and the record in a run directory's manifest.yaml."""
    tree = load_yaml(path)
    steps = tree.pop("steps", {})
    if not isinstance(steps, dict):
        raise UserError(f"{path}: steps: must be a mapping")
    return resolve(tree, source=str(path)), steps


def open_run(target: Path, overrides: Sequence[str] = (), run_dir: Path | None = None, look_only: bool = False) -> RunDir:
    """The run that a recipe, a run directory or its manifest.yaml means. Creates nothing.

    Args:
        look_only: the caller reads nothing of the run but its recipe, so a contradicting run directory is no matter.

    Raises:
        UserError: no such recipe, a bad one, or one that contradicts the manifest already in its run directory.
    """
    path = target / "manifest.yaml" if target.is_dir() else target
    if not path.is_file():
        what = "no manifest.yaml in this folder" if target.is_dir() else "no such recipe or run directory"
        raise UserError(f"{target}: {what}; give a recipe (configs/*.yaml), a run directory, or its manifest.yaml")
    tree = load_yaml(path)
    if "steps" in tree:
        del tree["steps"]
        manifest = resolve(tree, overrides, str(path))
        if overrides and not look_only:
            _refuse_differing(resolve(tree, source=str(path)), manifest, path.parent)
        if run_dir is not None and run_dir.resolve() != path.parent.resolve():
            raise UserError(f"--run-dir: {target} is itself a run directory; give its recipe to start another run")
        return RunDir(path.parent, manifest, str(target))
    manifest = load_recipe(path, overrides)
    words = [str(target), *(word for override in overrides for word in ("--set", override))]
    opened_by = shlex.join([*words, "--run-dir", str(run_dir)] if run_dir else words)
    run = RunDir(run_dir or Path("runs") / f"{manifest.name}-seed{manifest.seed}", manifest, opened_by)
    if run.manifest_path.exists() and not look_only:
        _refuse_differing(read_manifest(run.manifest_path)[0], manifest, run.path)
    return run


def _refuse_differing(recorded: Manifest, wanted: Manifest, path: Path) -> None:
    if keys := differing_keys(recorded, wanted):
        raise UserError(
            f"{path}: was made with other settings of {', '.join(keys)}; give --run-dir for a new run, or leave them as recorded"
        )


def _how_to_make(artifact: str, name: str, step: int) -> str:
    command = {"bank": "build-memory", "checkpoint": "train"}.get(artifact, "evaluate")
    return f"run: eir {command} {name} --step {step}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
