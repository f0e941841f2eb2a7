"""Run directories: the record, atomic writes, the lock."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from eircli.common.errors import UserError
from eircli.common.io import atomic_write, sha256
from eircli.run.record import ORDER, Entry, Steps, forget_derived
from eircli.run.rundir import RunDir, open_run_dir

RECIPE = "dataset: {kind: shapes}\nprotocol: {schedule: 6-2}\nmethod: {name: eir}\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def run(recipe: Path, tmp_path: Path) -> RunDir:
    run = open_run_dir(recipe, ["seed=3"], tmp_path / "run")
    with run.locked():
        pass
    return run


def make(run: RunDir, step: int, name: str, content: bytes) -> Path:
    path = run.file(step, name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_default_run_directory(recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_run_dir(recipe, ["seed=3"]).path == Path("runs/mine-seed3")
    assert not Path("runs").exists()


def test_recipe_run_directory_and_manifest_mean_the_same_run(recipe: Path, run: RunDir) -> None:
    for target in (run.path, run.manifest_path):
        assert open_run_dir(target).manifest == run.manifest
        assert open_run_dir(target).path == run.path
    assert open_run_dir(recipe, ["seed=3"], run.path).manifest == run.manifest


def test_a_run_directory_in_which_nothing_was_made_binds_nobody(recipe: Path, run: RunDir) -> None:
    other = open_run_dir(recipe, ["seed=3", "memory.budget=7"], run.path)
    with other.locked():
        pass
    assert open_run_dir(run.path).manifest.memory.budget == 7


def test_contradictions_are_refused_naming_the_keys(recipe: Path, run: RunDir) -> None:
    make(run, 0, "model.pt", b"weights")
    before = run.manifest_path.read_text()
    with pytest.raises(UserError, match=r"other settings of seed, dataset\.seed"):
        open_run_dir(recipe, [], run.path)
    with pytest.raises(UserError, match=r"other settings of memory\.budget"):
        open_run_dir(run.path, ["memory.budget=7"])
    assert run.manifest_path.read_text() == before
    assert open_run_dir(run.path, ["runtime.workers=2"]).manifest.runtime.workers == 2


def test_targets_that_are_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such recipe or run directory"):
        open_run_dir(tmp_path / "nothing.yaml")
    with pytest.raises(UserError, match=r"no manifest\.yaml"):
        open_run_dir(tmp_path)


def test_the_record(run: RunDir) -> None:
    path = make(run, 0, "model.pt", b"weights")
    with run.locked():
        run.record(0, "checkpoint", path, iterations=5)
    entry = yaml.safe_load(run.manifest_path.read_text())["steps"][0]["checkpoint"]
    assert entry["sha256"] == sha256(path)
    assert (entry["file"], entry["size"], entry["iterations"]) == ("step-0/model.pt", 7, 5)
    assert {"made", "eir", "torch", "python"} <= entry.keys()
    assert run.done(0, "checkpoint")
    assert not run.done(0, "results")
    path.write_bytes(b"weighTs")
    with pytest.raises(UserError, match=r"model\.pt: damaged .* eir train .* --step 0"):
        run.done(0, "checkpoint")
    path.unlink()
    assert not run.done(0, "checkpoint")
    with pytest.raises(UserError, match=r"recorded but missing"):
        run.verify(0, "checkpoint")
    with pytest.raises(UserError, match=r"step 1 has no bank yet; run: eir build-memory"):
        run.verify(1, "bank")


def test_what_was_made_from_an_earlier_version_is_forgotten(run: RunDir) -> None:
    def recorded() -> dict[int, set[str]]:
        return {step: set(entry) for step, entry in run.steps.items() if entry}

    with run.locked():
        for step in (0, 1, 2):
            if step:
                run.record(step, "bank", make(run, step, "bank.h5", b"bank"))
            run.record(step, "checkpoint", make(run, step, "model.pt", b"one"))
            run.record(step, "results", make(run, step, "results.json", b"{}"))
        everything = recorded()
        run.record(0, "checkpoint", make(run, 0, "model.pt", b"one"))
        run.record(1, "results", make(run, 1, "results.json", b"{ }"))
        assert recorded() == everything
        run.record(1, "checkpoint", make(run, 1, "model.pt", b"two"))
        assert recorded() == {0: {"checkpoint", "results"}, 1: {"bank", "checkpoint"}, 2: {"bank"}}
        run.record(1, "bank", make(run, 1, "bank.h5", b"other"))
        assert recorded() == {0: {"checkpoint", "results"}, 1: {"bank"}}


@pytest.mark.parametrize("needs_model", [False, True])
def test_what_is_forgotten_is_what_the_files_were_made_from(needs_model: bool) -> None:
    """Every artifact of four steps replaced in turn, of which the second was imported; against a search through what reaches what."""
    entry = Entry("f", 1, "0", "now", "1", "1", "1")
    for replaced in [(step, name) for step in range(4) for name in ORDER]:
        steps: Steps = {step: dict.fromkeys(ORDER, entry) for step in range(4)}
        steps[1]["checkpoint"] = replace(entry, facts={"imported": "x.pth"})
        everything = {(step, name) for step in range(4) for name in ORDER}
        makes: dict[tuple[int, str], set[tuple[int, str]]] = {one: set() for one in everything}
        for step in range(4):
            makes[step, "bank"] |= {(step, "checkpoint"), (step + 1, "bank")}
            makes[step, "checkpoint"] |= {(step + 1, "checkpoint")} | ({(step + 1, "bank")} if needs_model else set())
            makes[step, "checkpoint"] |= {(t, name) for t in range(step, 4) for name in ("results", "results_full_size")}
        gone: set[tuple[int, str]] = set()
        todo: list[tuple[int, str]] = [replaced]
        while todo:
            for one in makes.get(todo.pop(), set()) - gone - {(1, "checkpoint")}:
                if one in everything:
                    gone.add(one)
                    todo.append(one)
        forget_derived(steps, *replaced, needs_model)
        assert {(step, name) for step, made in steps.items() for name in made} == everything - gone


def test_atomic_write_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file"
    with atomic_write(path) as file:
        file.write(b"old")
    with pytest.raises(TypeError), atomic_write(path) as file:
        file.writelines([b"new", None])  # type: ignore[list-item]
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no room left on the disk"), atomic_write(tmp_path / "file"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def _hold(path: Path, manifest_path: Path, ready: Path) -> None:
    with open_run_dir(manifest_path).locked():
        (path / ".model.pt.x.part").write_bytes(b"half")
        ready.touch()
        time.sleep(60)


def test_one_writer_at_a_time_and_a_killed_one_lets_go(run: RunDir, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    other = multiprocessing.get_context("spawn").Process(target=_hold, args=(run.path, run.manifest_path, ready))
    other.start()
    while not ready.exists():
        time.sleep(0.02)
    with pytest.raises(UserError, match="another eir process"), run.locked():
        pass
    assert other.pid is not None
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    with run.locked():
        assert not list(run.path.glob(".*.part"))


def test_a_command_that_fails_at_once_leaves_no_run_behind(recipe: Path, tmp_path: Path) -> None:
    run = open_run_dir(recipe, [], tmp_path / "run")
    with pytest.raises(UserError, match=r"run: eir train \S*mine\.yaml --run-dir \S*run --step 0"), run.locked():
        run.verify(0, "checkpoint")
    assert not run.path.exists()
