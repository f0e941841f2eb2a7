"""One process against several, which talk by gloo on the CPU."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed import HashStore  # type: ignore[attr-defined]

from eircli.cli.app import main
from eircli.common import distributed
from eircli.common.errors import UserError
from eircli.config.recipe import resolve
from eircli.engine.parallel import communication
from eircli.run.models import load_model
from eircli.run.run import Run, open_run
from eircli.stages import evaluate as evaluation
from eircli.stages import train as training
from eircli.stages.run_protocol import run_protocol

TINY = Path(__file__).parent / "tiny.yaml"
# Dropout differs between processes; at a high learning rate rounding errors grow.
CALM = ("train.base.dropout=false", "train.base.lr=0.01", "train.base.batch_size=8", "train.base.iterations=10")
SETTINGS = (*CALM, "model.new_classifier=similar", "runtime.log_every=1", "dataset.val_images=9")
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def words(*overrides: str) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TINY.parent.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def start_pair(*arguments: str) -> list[subprocess.Popen[str]]:
    """Two processes of one command as torchrun starts them, but without it, so that their exit codes are seen."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [start("-m", "eircli", *arguments, RANK=rank, LOCAL_RANK=rank, **common) for rank in ("0", "1")]


def await_file(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.01)


def journal(run: Path, step: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / f"step-{step}/journal.jsonl").read_text().splitlines()]


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return dict(torch.load(run / f"step-{step}/model.pt", weights_only=True)["model"])


def confusion(run: Path, step: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    lines = (run / f"step-{step}/confusion.csv").read_text().splitlines()[1:]
    return np.array([line.split(",")[1:] for line in lines], np.int64)


def quiet(_: str) -> None:
    return None


def whole_run(path: Path, *overrides: str) -> Run:
    run = open_run(TINY, overrides, path)
    with run.locked():
        run_protocol(run, quiet)
    return run


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process in float64: a feature that float32 rounds across zero would change gradients by percents."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EIR_CACHE", str(tmp_path_factory.mktemp("cache")))
        torch.set_default_dtype(torch.float64)
        try:
            return whole_run(tmp_path_factory.mktemp("one") / "run", *SETTINGS).directory.path
        finally:
            torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def in_float64(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of a program: eir in float64."""
    program = tmp_path_factory.mktemp("program") / "eir.py"
    program.write_text("import torch\ntorch.set_default_dtype(torch.float64)\nfrom eircli.cli.app import main\nmain()\n")
    return str(program)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, in_float64: str) -> Path:
    path, cache = tmp_path_factory.mktemp("two") / "run", str(tmp_path_factory.mktemp("cache"))
    command = (in_float64, "run-protocol", str(TINY), "--run-dir", str(path), "--json")
    process = start(*TWO, *command, *words(*SETTINGS), EIR_CACHE=cache)
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert len(json.loads(output)["runs"][0]["steps"]) == 3
    assert "step 0: batch 8 = 2 processes × 4, learning rate 0.01; summed per iteration: " in errors
    return path


def test_two_processes_compute_what_one_does_step_by_step(one: Path, two: Path) -> None:
    for step in range(3):
        rows, pairs = journal(one, step), journal(two, step)
        assert [row["iteration"] for row in pairs] == [row["iteration"] for row in rows]
        for row, pair in zip(rows, pairs, strict=True):
            assert pair["losses"] == pytest.approx(row["losses"], rel=1e-5)
            assert pair["lr"] == row["lr"]
        ours, theirs = weights(one, step), weights(two, step)
        assert list(ours) == list(theirs)
        for name in ours:
            torch.testing.assert_close(theirs[name], ours[name], rtol=1e-7, atol=1e-9, msg=name)


def test_two_processes_build_the_same_banks(one: Path, two: Path) -> None:
    for step in (1, 2):
        assert (two / f"step-{step}/bank.h5").read_bytes() == (one / f"step-{step}/bank.h5").read_bytes()


def test_two_processes_count_every_pixel_once(one: Path, two: Path) -> None:
    for step in range(3):
        ours, theirs = confusion(one, step), confusion(two, step)
        np.testing.assert_array_equal(theirs.sum(axis=1), ours.sum(axis=1))
        assert np.abs(theirs - ours).sum() <= 0.005 * ours.sum()
    last, alone = (json.loads((run / "step-2/results.json").read_text()) for run in (two, one))
    assert last["images"] == alone["images"]
    assert last["all"] == pytest.approx(alone["all"], abs=1)


def test_what_processes_send_is_recorded(two: Path) -> None:
    steps = open_run(two).directory.steps
    learned = [name for name in weights(two, 0) if "running" not in name and "tracked" not in name]
    means = sum(tensor.numel() for name, tensor in weights(two, 0).items() if name.endswith("running_mean"))
    gradients = sum(weights(two, 0)[name].numel() for name in learned)
    assert steps[0]["checkpoint"].facts["processes"] == 2
    assert steps[0]["checkpoint"].facts["sent_bytes"] == 8 * (gradients + 4 * means)
    assert communication(load_model(open_run(two), 0).eval()) == (4 * gradients, 0)


def test_a_killed_process_is_restarted_and_the_run_ends_bit_for_bit_as_without(
    two: Path, in_float64: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = (in_float64, "train", str(TINY), "--step", "0", "--run-dir", str(run))
    process = start(*TWO, "--max-restarts", "1", *command, *words(*SETTINGS, "runtime.checkpoint_minutes=0"))
    await_file(run / "step-0/resume.pt")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert "going on at iteration" in errors
    resumed, uninterrupted = weights(run, 0), weights(two, 0)
    assert all(torch.equal(resumed[name], uninterrupted[name]) for name in uninterrupted)
    assert [row["losses"] for row in journal(run, 0)] == [row["losses"] for row in journal(two, 0)]


def test_control_c_on_one_process_stops_all_and_saves(tmp_path: Path) -> None:
    run = tmp_path / "run"
    pair = start_pair(
        "train", str(TINY), "--step", "0", "--run-dir", str(run), *words("train.base.iterations=100000", "runtime.log_every=1")
    )
    await_file(run / "step-0/journal.jsonl")
    while not (run / "step-0/journal.jsonl").read_text():
        time.sleep(0.05)
    pair[1].send_signal(signal.SIGINT)
    errors = [process.communicate(timeout=60)[1] for process in pair]
    assert [process.returncode for process in pair] == [130, 130], errors
    assert errors[0].strip().splitlines()[-1] == "interrupted; the same command goes on from here"
    assert errors[1] == ""
    assert torch.load(run / "step-0/resume.pt", weights_only=True)["iteration"] > 0


@pytest.mark.parametrize("key", ["train.batch_size", "train.base.batch_size"])
def test_batches_that_cannot_be_shared_out(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "world_size", lambda: 2)
    parts = ("train.accumulate=2", "train.base.batch_size=8")
    command = ["run-protocol", str(TINY), "--run-dir", str(tmp_path / "run"), *words(*parts, f"{key}=6")]
    monkeypatch.setattr(sys, "argv", ["eir", *command])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    message = f"{key}: 6 samples cannot be shared out evenly (2 processes × 2 micro-batches); make it a multiple of 4"
    assert message in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_first_process_to_fail_says_why() -> None:
    store = HashStore()
    assert [distributed._is_first_to_fail(store) for _ in range(3)] == [True, False, False]


def test_star_is_refused_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(TINY, ("method.name=star", "train.accumulate=2"), tmp_path / "run")
    training.check_settings(run, 0)
    with pytest.raises(UserError, match=r"method star: .* train\.accumulate=1"):
        training.check_settings(run, 1)
    monkeypatch.setattr(training, "world_size", lambda: 2)
    with pytest.raises(UserError, match=r"method star: .* without torchrun"):
        training.check_settings(open_run(TINY, ("method.name=star",), tmp_path / "run"), 1)


def test_micro_batches_divide_the_batch() -> None:
    recipe = {"name": "x", "dataset": {"kind": "shapes"}, "protocol": {"schedule": "joint"}, "method": {"name": "finetune"}}
    with pytest.raises(UserError, match="batch_size 10 is no multiple of accumulate 4"):
        resolve(recipe, ("train.batch_size=10", "train.accumulate=4"))
    with pytest.raises(UserError, match="BatchNorm cannot learn from single images"):
        resolve(recipe, ("train.batch_size=4", "train.accumulate=4"))


@pytest.mark.parametrize("total", [0, 1, 5, 9, 12])
def test_every_position_is_exactly_one_process_s(total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (1, 2, 4, 7):
        monkeypatch.setattr(distributed, "world_size", lambda count=count: count)
        shares: list[int] = []
        for rank in range(count):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            shares += distributed.shard(total)
        assert sorted(shares) == list(range(total))


def test_shares_of_a_test_set_add_up_to_it(one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four processes, so that the last round has fewer images than processes; and one that has none at all."""
    shutil.copytree(one, tmp_path / "run")
    run, whole = open_run(tmp_path / "run"), confusion(one, 2)
    images = len(run.test_view(2))
    assert images % 4
    for processes in (4, images + 1):
        total = np.zeros_like(whole)
        for rank in range(processes):
            monkeypatch.setattr(evaluation, "shard", lambda total, r=rank, p=processes: range(r, total, p))
            with run.locked():
                evaluation.evaluate(run, 2, quiet, again=True)
            total += confusion(run.directory.path, 2)
        np.testing.assert_array_equal(total, whole)


def test_micro_batches_add_up_to_the_batch(tmp_path: Path) -> None:
    common = ("train.base.frozen_batchnorm=true", "train.base.iterations=2", "train.iterations=3", *SETTINGS[:3], *SETTINGS[4:])
    whole = whole_run(tmp_path / "whole", *common).directory.path
    parts = whole_run(tmp_path / "parts", *common, "train.accumulate=2", "train.base.accumulate=4").directory.path
    for step in range(3):
        rows, pairs = journal(whole, step), journal(parts, step)
        for row, pair in zip(rows, pairs, strict=True):
            assert pair["losses"] == pytest.approx(row["losses"], rel=1e-5)
