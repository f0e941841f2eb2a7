"""A run directory: its files, the record of finished artifacts, and the lock.

RUN/manifest.yaml                       the resolved recipe and the record `steps:`
RUN/step-0/{model.pt, resume.pt, journal.jsonl, results.json, confusion.csv}
RUN/step-1/{bank.h5, model.pt, …}
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from eircli.common.errors import UserError
from eircli.common.io import sha256, write_text
from eircli.config.fingerprint import differing_keys, to_tree
from eircli.config.manifest import Manifest
from eircli.config.recipe import load_recipe, recipe_file, resolve
from eircli.config.tree import Tree, load_yaml
from eircli.run.record import MADE_BY, Artifact, Entry, Record, Steps, forget_derived, is_imported

HEADER = "# Written by eir: the resolved recipe of this run and, under `steps`, what it has made so far.\n"

RECORD_KEYS = ("classes", "label_ids", "steps")
"""What stands in a run's manifest.yaml beside the recipe."""


class RunDir:
    """One run directory with its manifest. Reading needs no lock; writing is done inside `locked()`."""

    def __init__(self, path: Path, manifest: Manifest, opened_by: str) -> None:
        self.path = path
        self.manifest = manifest
        self._opened_by = opened_by
        self._record: Record | None = None

    @property
    def name(self) -> str:
        """The argument that names this run to a command: the run directory once it holds something, before that what opened it."""
        return str(self.path) if self.holds_something else self._opened_by

    @property
    def holds_something(self) -> bool:
        """Whether anything was made in it; a command that was killed before that leaves a manifest alone, which binds nobody."""
        return any(self.path.glob("step-*"))

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
    def locked(self, classes: Sequence[str] | None = None, label_ids: Sequence[int] | None = None) -> Iterator[None]:
        """Hold the lock for writing. The directory is created, and removed if the block fails with a `UserError` before it made anything.

        The operating system releases the lock when its holder dies.

        Args:
            classes: the names of the data set's classes, recorded for those who open the run without the data set.
            label_ids: the ids that they have in the label files, where those are not 1, 2, …

        Raises:
            UserError: somebody else holds it, or it was made with another recipe or other classes.
        """
        is_new = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be a run directory: {error.strerror}; give another --run-dir") from None
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{self.path}: another eir process is working on this run; wait for it or end it") from None
        try:
            for leftover in self.path.glob("**/.*.part"):
                leftover.unlink()
            self._settle(classes, label_ids)
            yield
        except UserError:
            if is_new and not list(self.path.glob("step-*")):
                shutil.rmtree(self.path)
            raise
        finally:
            lock.release()

    def _settle(self, classes: Sequence[str] | None, label_ids: Sequence[int] | None) -> None:
        """Create the manifest, or check that it is of the same recipe and classes."""
        if self.manifest_path.exists():
            recorded, self._record = read_manifest(self.manifest_path)
            if self.holds_something:
                _refuse_differing(recorded, self.manifest, self.path)
            elif differing_keys(recorded, self.manifest):
                self._record = Record()
        else:
            self._record = Record()
        if classes is not None:
            self._check_classes(self._record, tuple(classes), None if label_ids is None else tuple(label_ids))
        self._write()

    def _check_classes(self, record: Record, classes: tuple[str, ...], label_ids: tuple[int, ...] | None) -> None:
        """Refuse other classes than the recorded ones; record them if there are none."""
        if record.classes not in (None, classes):
            was, now = ", ".join(record.classes or ()), ", ".join(classes)
        elif record.label_ids not in (None, label_ids):
            was, now = (
                ", ".join(f"{n} = {i}" for n, i in zip(classes, ids or (), strict=False)) for ids in (record.label_ids, label_ids)
            )
        else:
            record.classes, record.label_ids = classes, label_ids
            return
        raise UserError(
            f"{self.path}: was made with the classes {was}; the data set now has {now or 'them as 1, 2, …'}; "
            "put it back, or give --run-dir for a new run"
        )

    def _write(self) -> None:
        steps = {step: {artifact: entry.to_tree() for artifact, entry in made.items()} for step, made in self.steps.items()}
        tree: Tree = to_tree(self.manifest)
        if self.classes is not None:
            tree["classes"] = list(self.classes)
        if self.recorded.label_ids is not None:
            tree["label_ids"] = list(self.recorded.label_ids)
        text = yaml.safe_dump(tree | {"steps": steps}, sort_keys=False, default_flow_style=None, allow_unicode=True)
        write_text(self.manifest_path, HEADER + text)

    @property
    def recorded(self) -> Record:
        """The record; empty for a run that no command has worked on."""
        if self._record is None:  # cached: only the holder of the lock writes
            self._record = read_manifest(self.manifest_path)[1] if self.manifest_path.exists() else Record()
        return self._record

    @property
    def steps(self) -> Steps:
        """Step → artifact → its entry in the record."""
        return self.recorded.steps

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the data set's classes, as recorded; None before a command has worked on the run."""
        return self.recorded.classes

    @property
    def first_step(self) -> int:
        """The step that the run begins with: the last one whose checkpoint was imported, else 0."""
        return max((step for step, made in self.steps.items() if is_imported(made.get("checkpoint"))), default=0)

    def last_trained(self) -> int:
        """The last step that has a checkpoint.

        Raises:
            UserError: none has.
        """
        trained = [step for step, made in self.steps.items() if "checkpoint" in made]
        if not trained:
            raise UserError(f"{self.path}: no step is trained yet; run: eir run-protocol {self.name}")
        return max(trained)

    def adopt(self, record: Record) -> None:
        """Replace the record by the main process's."""
        self._record = record

    def entry(self, step: int, artifact: Artifact) -> Entry | None:
        """What is recorded of an artifact; None if nothing."""
        return self.steps.get(step, {}).get(artifact)

    def record(self, step: int, artifact: Artifact, path: Path, **facts: object) -> None:
        """Enter a finished artifact; what was made from an earlier version of it is dropped from the record."""
        entry, before = Entry.of_file(path, self.path, facts), self.entry(step, artifact)
        made = self.steps.setdefault(step, {})
        if before is None or before.sha256 != entry.sha256:
            forget_derived(self.steps, step, artifact, self.manifest.memory_needs_model)
        made[artifact] = entry
        self.recorded.steps = dict(sorted(self.steps.items()))
        self._write()

    def done(self, step: int, artifact: Artifact) -> bool:
        """Whether the artifact is recorded, there and intact.

        Raises:
            UserError: it is there but damaged.
        """
        entry = self.entry(step, artifact)
        return entry is not None and (self.path / entry.file).is_file() and self.verify(step, artifact).is_file()

    def verify(self, step: int, artifact: Artifact) -> Path:
        """The artifact's path, after its content has been checked against the record.

        Raises:
            UserError: not recorded, missing, or damaged.
        """
        entry = self.entry(step, artifact)
        if entry is None:
            raise UserError(f"{self.path}: step {step} has no {artifact} yet; {_how_to_make(artifact, self.name, step)}")
        path = self.path / entry.file
        if not path.is_file():
            raise UserError(f"{path}: recorded but missing; {_how_to_make(artifact, self.name, step)}")
        if path.stat().st_size != entry.size or sha256(path) != entry.sha256:
            raise UserError(
                f"{path}: damaged (not the recorded sha256); delete it, then {_how_to_make(artifact, self.name, step)}"
            )
        return path


def read_manifest(path: Path) -> tuple[Manifest, Record]:
    """The manifest and the record in a run directory's manifest.yaml."""
    tree = load_yaml(path)
    classes, label_ids, steps = tree.pop("classes", None), tree.pop("label_ids", None), tree.pop("steps", {})
    try:
        made: Steps = {
            step: {artifact: Entry.from_tree(entry) for artifact, entry in artifacts.items()} for step, artifacts in steps.items()
        }
    except (AttributeError, TypeError):
        raise UserError(f"{path}: steps: is no record of a run; restore the file from a copy") from None
    for key, values, kind in (("classes", classes, str), ("label_ids", label_ids, int)):
        if values is not None and not (isinstance(values, list) and all(isinstance(value, kind) for value in values)):
            raise UserError(f"{path}: {key}: must be the {key} of the run's data set; restore the file from a copy")
    known = Record(made, *(None if values is None else tuple(values) for values in (classes, label_ids)))
    return resolve(tree, source=str(path)), known


def open_run_dir(target: Path, overrides: Sequence[str] = (), run_dir: Path | None = None, look_only: bool = False) -> RunDir:
    """The run that a recipe, a run directory or its manifest.yaml means. Creates nothing.

    Args:
        look_only: skip the check against an existing run directory.

    Raises:
        UserError: no such recipe, a bad one, or one that contradicts the manifest already in its run directory.
    """
    path, run = recipe_file(target / "manifest.yaml" if target.is_dir() else target)
    if not path.is_file():
        what = "no manifest.yaml in this folder" if target.is_dir() else "no such recipe or run directory"
        raise UserError(f"{target}: {what}; give a recipe (configs/*.yaml), a run directory, or its manifest.yaml")
    tree = load_yaml(path)
    if run is None and any(key in tree for key in RECORD_KEYS):
        for key in RECORD_KEYS:
            tree.pop(key, None)
        manifest = resolve(tree, overrides, str(path))
        if overrides and not look_only:
            _refuse_differing(resolve(tree, source=str(path)), manifest, path.parent)
        if run_dir is not None and run_dir.resolve() != path.parent.resolve():
            raise UserError(f"--run-dir: {target} is itself a run directory; give its recipe to start another run")
        return RunDir(path.parent, manifest, str(target))
    manifest = load_recipe(target if run else path, overrides)
    words = [str(target), *(word for override in overrides for word in ("--set", override))]
    opened_by = shlex.join([*words, "--run-dir", str(run_dir)] if run_dir else words)
    directory = RunDir(run_dir or Path("runs") / f"{manifest.name}-seed{manifest.seed}", manifest, opened_by)
    if directory.manifest_path.exists() and directory.holds_something and not look_only:
        _refuse_differing(read_manifest(directory.manifest_path)[0], manifest, directory.path)
    return directory


def _refuse_differing(recorded: Manifest, wanted: Manifest, path: Path) -> None:
    if keys := differing_keys(recorded, wanted):
        shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
        raise UserError(
            f"{path}: was made with other settings of {shown}; to work on it as it is, give it in place of the recipe; for a new run "
            "give --run-dir or --set name=…"
        )


def _how_to_make(artifact: Artifact, name: str, step: int) -> str:
    return f"run: eir {MADE_BY[artifact]} {name} --step {step}"
