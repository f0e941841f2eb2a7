"""The loop's parts: schedule, optimizer, figures, journal, checkpoints."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eircli.common.errors import UserError
from eircli.common.types import Batch, ParameterGroups
from eircli.config.manifest import StepTraining
from eircli.config.recipe import load_recipe
from eircli.config.runtime import Runtime
from eircli.engine.checkpoint import load_state, save_state
from eircli.engine.data_timer import DataTimer
from eircli.engine.device import Compute, choose_compute
from eircli.engine.journal import Journal
from eircli.engine.metrics import Absent, confusion_matrix, iou, taken_by_background
from eircli.engine.optim import build_optimizer, build_scheduler
from eircli.engine.threads import AT_START, use_threads
from eircli.engine.train import Plan, TrainState, fit
from eircli.run.results import summarize
from tests import reference


def groups_of(*backbone: nn.Parameter) -> ParameterGroups:
    """A backbone's parameters as one depth, with no head."""
    return ParameterGroups([list(backbone)], [], [], set())


def three_groups() -> ParameterGroups:
    return ParameterGroups([[nn.Parameter(torch.ones(1))]], [nn.Parameter(torch.ones(1))], [nn.Parameter(torch.ones(1))], set())


@pytest.mark.parametrize(("total", "warmup", "power"), [(10, 0.0, 0.9), (50, 0.2, 0.9), (7, 0.5, 2.0)])
def test_learning_rate(total: int, warmup: float, power: float) -> None:
    config = StepTraining(iterations=total, lr=0.3, warmup=warmup, poly_power=power)
    optimizer = build_optimizer(three_groups(), config)
    scheduler = build_scheduler(optimizer, config, total)
    for iteration in range(total):
        expected = reference.learning_rate(iteration, total, 0.3, power, warmup)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([expected, 10 * expected, 10 * expected])
        optimizer.step()
        scheduler.step()


def test_weight_decay_on_the_newest_classifier_alone() -> None:
    decays = [
        [
            group["weight_decay"]
            for group in build_optimizer(three_groups(), StepTraining(iterations=1, weight_decay_on=on)).param_groups
        ]
        for on in ("all", "new-classifier")
    ]
    assert decays == [[1e-4, 1e-4, 1e-4], [0, 0, 1e-4]]


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), k=st.integers(2, 6), base=st.integers(1, 5), absent=st.sampled_from(["zero", "skip"]))
def test_figures(seed: int, k: int, base: int, absent: Absent) -> None:
    base = min(base, k - 1)
    generator = np.random.default_rng(seed)
    truth = generator.choice([*range(max(1, k - 1)), 255], (6, 7)).astype(np.uint8)
    guess = generator.integers(0, k - 1, (6, 7)).astype(np.uint8)
    counted = confusion_matrix(torch.from_numpy(truth), torch.from_numpy(guess), k).numpy()
    expected_counts = reference.confusion(truth, guess, k)
    np.testing.assert_array_equal(counted, expected_counts)
    expected = reference.iou_figures(expected_counts, base, absent)
    ours = iou(counted, absent)
    assert ours == pytest.approx([None if value is None else 100 * value for value in expected["iou"]])
    for name, value in summarize(ours, base)._asdict().items():
        assert value == (None if expected[name] is None else pytest.approx(100 * expected[name]))


def test_what_background_takes() -> None:
    confusion = np.array([[9, 0, 0], [3, 1, 0], [2, 2, 4]])
    assert taken_by_background(confusion, [1]) == 75
    assert taken_by_background(confusion, [1, 2]) == pytest.approx(100 * 5 / 12)
    assert taken_by_background(np.zeros((2, 2), np.int64), [1]) is None


def test_journal_drops_what_a_resumed_run_writes_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, 0)
    for iteration in (10, 20, 30):
        journal.write(iteration=iteration)
    path.write_text(path.read_text() + '{"iteration": 4')
    Journal(path, 20).write(iteration=25)
    assert path.read_text() == '{"iteration": 10}\n{"iteration": 20}\n{"iteration": 25}\n'


class Loading:
    """Six batches that take a while to come."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(6):
            time.sleep(self.seconds)
            yield Batch(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4), 0, torch.zeros(2, dtype=torch.bool))


class Working:
    """An objective that takes a while."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def prepare(self, batch: Batch) -> Batch:
        return batch

    def counted_pixels(self, batch: Batch) -> torch.Tensor:
        return batch.labels

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        time.sleep(self.seconds)
        return {"loss": model(batch.images).mean()}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time that passes by sleeping alone, and at once."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.append(now.pop() + seconds))


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("loading", "working", "share"), [(3, 1, 0.75), (1, 2, 0.333), (0, 1, 0.0)])
def test_the_journal_and_the_bar_say_how_long_the_device_waits_for_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], loading: float, working: float, share: float
) -> None:
    model, config = nn.Conv2d(3, 1, 1), StepTraining(iterations=6)
    optimizer = build_optimizer(groups_of(*model.parameters()), config)
    compute = choose_compute(Runtime(device="cpu"))
    state = TrainState(model, optimizer, build_scheduler(optimizer, config, 6), compute.scaler())
    plan = Plan(6, 2, 1, False, 3.0, 0, compute, None, None, 3, 60.0, None, "a step")
    fit(state, Working(working), Loading(loading), plan, Journal(tmp_path / "journal.jsonl", 0), save=lambda _: None)
    entries = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [(entry["iteration"], entry["data_wait"]) for entry in entries] == [(3, share), (6, share)]
    assert f"data {share:.0%} " in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_hosts_waiting_while_a_cuda_device_works_does_not_count() -> None:
    matrix = torch.ones(8192, 8192, device="cuda")
    for products, low, high in ((0, 0.25, 1.0), (100, 0.0, 0.15)):
        feed = DataTimer(Loading(0.05), torch.device("cuda"))
        for _ in feed:
            for _ in range(products):
                matrix = matrix @ matrix / 8192
        assert low < feed.waited() < high


def test_checkpoints_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    save_state(path, {"recipe": "a", "tensor": torch.arange(3)})
    assert load_state(path, "a", "train again")["tensor"].tolist() == [0, 1, 2]
    with pytest.raises(UserError, match=r"x\.pt: is the checkpoint of another recipe; train again"):
        load_state(path, "b", "train again")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"x\.pt: damaged"):
        load_state(path, "a", "train again")
    torch.save({"recipe": "a"}, path)
    with pytest.raises(UserError, match="no checkpoint of eir"):
        load_state(path, "a", "train again")
    with pytest.raises(UserError, match="missing"):
        load_state(tmp_path / "y.pt", "a", "train again")


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        (Runtime(device="tpu"), "'tpu' is no device"),
        (Runtime(device="mps"), "mps is not supported"),
        (Runtime(device="cpu", precision="fp16"), "fp16 needs CUDA"),
    ],
)
def test_devices_that_are_not_there(runtime: Runtime, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose_compute(runtime)


def test_no_cuda_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device is available"):
        choose_compute(Runtime(device="cuda"))
    assert choose_compute(Runtime()).device.type == "cpu"
    assert choose_compute(Runtime(precision="bf16")).dtype == torch.bfloat16


def test_the_moving_average_of_weights() -> None:
    """Against a plain loop: it starts as the first model, remembers less of it early on, and BatchNorm's counter is the last one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    state = TrainState(model, cast(Any, None), cast(Any, None), cast(Any, None))
    history = []
    for iteration in range(4):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(iteration + 1)
        history.append({name: value.double().clone() for name, value in model.state_dict().items()})
        state.iteration = 20 * iteration
        state.update_average(0.9)
    for name, found in state.average.items():
        expected = history[0][name]
        for later, decay in zip(history[1:], (21 / 30, 41 / 50, 61 / 70), strict=True):
            expected = decay * expected + (1 - decay) * later[name]
        torch.testing.assert_close(found.double(), history[-1][name] if "num_batches" in name else expected)


@pytest.mark.parametrize(
    ("wanted", "batch", "crop", "device", "expected"),
    [
        ("auto", 16, 64, "cpu", 1),
        ("auto", 24, 512, "cpu", AT_START),
        (2, 16, 64, "cpu", 2),
        ("auto", 16, 64, "cuda", AT_START),
    ],
)
def test_threads_are_chosen_by_the_work(
    wanted: int | str, batch: int, crop: int, device: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    settings = [f"runtime.threads={wanted}", f"train.batch_size={batch}", f"data.crop_size={crop}"]
    manifest = load_recipe(Path(__file__).parent / "tiny.yaml", settings)
    torch.set_num_threads(AT_START)
    try:
        assert use_threads(manifest, Compute(torch.device(device), torch.float32), 1) == expected
        assert torch.get_num_threads() == expected
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        torch.set_num_threads(AT_START)
        assert use_threads(manifest, Compute(torch.device(device), torch.float32), 1) == (
            AT_START if wanted == "auto" else expected
        )
    finally:
        torch.set_num_threads(AT_START)
