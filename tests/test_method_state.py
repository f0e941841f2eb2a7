"""What a method leaves at the end of a step reaches its next step: `Method.end`, `Context.state`."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from eircli import methods
from eircli.config import methods as method_settings
from eircli.config.fingerprint import base_fingerprint
from eircli.config.manifest import Manifest
from eircli.config.section import MethodSettings
from eircli.engine import train as loop
from eircli.methods.base import CalibrationPass, Context, MethodState
from eircli.methods.finetune import Finetune
from eircli.model.deeplab import DeepLab
from eircli.run.run import open_run
from eircli.stages.run_protocol import run_protocol
from eircli.stages.train import train

TINY = Path(__file__).parent / "tiny.yaml"


def quiet(_: str) -> None:
    return None


def stem(model: DeepLab) -> Tensor:
    """The weights of its first layer."""
    return next(model.backbone.parameters())


class Anchored(Finetune):
    """Fine-tuning that is held to the importance-weighted weights before, as elastic weight consolidation is."""

    told: ClassVar[list[MethodState]] = []

    def __init__(self, config: MethodSettings, context: Context) -> None:
        super().__init__(config, context)
        self.state = context.state
        self.told.append(context.state)

    def losses(self, model: DeepLab, batch: Any) -> dict[str, Tensor]:
        losses = super().losses(model, batch)
        if self.state:
            held = stem(model)
            losses["anchor"] = (self.state["importance"] * (held - self.state["weight"]).square()).sum()
        return losses

    def end(self, model: DeepLab, calibration: CalibrationPass) -> MethodState:
        images = sum(len(batch.images) for batch in calibration())
        weight = stem(model).detach().clone()
        return {"weight": weight, "importance": torch.full_like(weight, 0.5), "images": images}


class LeavesState(method_settings.FinetuneSettings):
    leaves_state: ClassVar[bool] = True


@pytest.fixture(autouse=True)
def _anchored(monkeypatch: pytest.MonkeyPatch) -> None:
    Anchored.told.clear()
    monkeypatch.setitem(methods.METHODS, "finetune", Anchored)
    monkeypatch.setattr(method_settings.FinetuneSettings, "leaves_state", True)


def test_a_state_is_saved_with_the_checkpoint_and_handed_on(tmp_path: Path) -> None:
    run = open_run(TINY, ["method={name: finetune}"], tmp_path / "run").checked()
    with run.locked():
        run_protocol(run, quiet)
    saved = [torch.load(run.directory.checkpoint(step), weights_only=True) for step in range(3)]
    assert [set(one["method_state"]) for one in saved] == [{"weight", "importance", "images"}] * 3
    for step, told in enumerate(Anchored.told):
        if step == 0:
            assert told == {}
        else:
            assert torch.equal(told["weight"], saved[step - 1]["model"]["backbone.stem.0.weight"])
            assert torch.equal(told["weight"], saved[step - 1]["method_state"]["weight"])
    journal = [run.directory.journal(step).read_text() for step in range(3)]
    assert ["anchor" in text for text in journal] == [False, True, True]
    samples = [run.directory.steps[step]["checkpoint"].facts["samples"] for step in range(3)]
    assert [one["method_state"]["images"] // 4 for one in saved] == [-(-count // 4) for count in samples]


def test_a_resumed_step_is_told_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = open_run(TINY, ["method={name: finetune}"], tmp_path / "whole").checked()
    broken = open_run(TINY, ["method={name: finetune}", "runtime.checkpoint_minutes=0"], tmp_path / "broken").checked()
    with whole.locked():
        for step in (0, 1):
            train(whole, step, quiet)
    true_step, calls = loop.train_step, 0

    def dying_step(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 43:
            raise MemoryError("the machine went down")
        return true_step(*args)

    monkeypatch.setattr(loop, "train_step", dying_step)
    with broken.locked():
        train(broken, 0, quiet)
        with pytest.raises(MemoryError):
            train(broken, 1, quiet)
        train(broken, 1, quiet)
    ours, theirs = (torch.load(run.directory.checkpoint(1), weights_only=True)["model"] for run in (broken, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_method_without_a_state_adds_nothing_to_its_checkpoints(tmp_path: Path) -> None:
    run = open_run(TINY, ["train.base.iterations=2"], tmp_path / "run").checked()
    with run.locked():
        train(run, 0, quiet)
    assert "method_state" not in torch.load(run.directory.checkpoint(0), weights_only=True)


def test_the_base_step_of_a_method_that_leaves_a_state_is_not_shared_with_others() -> None:
    def manifest(leaves: bool) -> Manifest:
        settings = open_run(TINY).manifest
        method = (LeavesState if leaves else method_settings.LwfSettings)(name="finetune" if leaves else "lwf")  # type: ignore[arg-type]
        return settings.model_copy(update={"method": method})

    assert base_fingerprint(manifest(True), [1, 2]) != base_fingerprint(manifest(False), [1, 2])
