"""`eir bench`: its plain ways are references, its figures add up."""

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from eircli.benchmark import codecs, growth, suite
from eircli.benchmark.estimate import Speeds, estimate
from eircli.benchmark.measure import Case, cost, peak_memory
from eircli.benchmark.parts import PASTES, composition_case, loss_case
from eircli.benchmark.plain import plain_fuse
from eircli.benchmark.report import BenchReport
from eircli.benchmark.steps import training_setup
from eircli.benchmark.synthetic_inputs import synthetic_instances, synthetic_labels
from eircli.benchmark.tables import bench_table
from eircli.cli.app import app
from eircli.common.records import from_json
from eircli.common.types import IGNORE, UInt8Array
from eircli.config.runtime import Runtime
from eircli.engine.device import choose_compute
from eircli.memory import fusion, replay
from eircli.memory.codecs import Encoding
from eircli.methods.measured import Role
from eircli.run.run import open_run

CPU = torch.device("cpu")
ROLES: tuple[Role, Role] = ("incremental", "plain")
TINY = Path(__file__).parent / "tiny.yaml"


@pytest.fixture
def one_thread() -> Iterator[list[str]]:
    """The option that a command takes one thread by; what it changes is changed back."""
    threads = torch.get_num_threads()
    yield ["--threads", "1"]
    torch.set_num_threads(threads)


@pytest.mark.parametrize("beta", [None, (1.0, 1.0)])
def test_batched_fusion_is_that_of_image_after_image(beta: tuple[float, float] | None) -> None:
    labels, combined = synthetic_labels(3, 128, [5], CPU), synthetic_labels(3, 128, [5, 1, 2], CPU)
    instances, images = synthetic_instances(4, 2, 40, CPU), torch.rand(3, 3, 128, 128) * 255
    draws = replay.draw(np.random.default_rng(0), 3, PASTES, 0.5, beta)
    potential = replay.potential_classes(labels, combined, 4, PASTES)
    pastes = replay.place(potential, replay.select_slots(combined, 60, PASTES), instances, draws, "best-slot", PASTES)
    assert pastes.active.any()
    mixed, soft = fusion.fuse(images, combined, instances, pastes, draws, 60)
    slow_mixed, slow_soft = plain_fuse(images, combined, instances, pastes, draws, 60, 6)
    torch.testing.assert_close(mixed, slow_mixed, rtol=1e-5, atol=1e-3)
    dense = torch.zeros(3, 6, 128, 128).scatter_add_(1, soft.channels.long(), soft.weights)
    torch.testing.assert_close(dense * soft.valid.unsqueeze(1), slow_soft, rtol=1e-5, atol=1e-5)
    assert torch.equal(soft.valid, combined != IGNORE)


def test_cost_is_a_median_and_a_ratio_of_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([1.0, 3.0, 2.0, 8.0, 9.0, 9.0])
    monkeypatch.setattr("eircli.benchmark.measure.timed", lambda work, device: next(seconds))
    found = cost(Case("some", lambda: None, plain=lambda: None, per=4), CPU, seconds=0, against_plain=True)
    assert (found.milliseconds, found.plain_milliseconds, found.ratio) == (500, 2000, 3)


def test_peak_memory_is_what_a_call_holds_at_most() -> None:
    peak = peak_memory(lambda: np.ones(64 * 2**20, np.uint8).sum(), CPU)
    if peak is None:
        pytest.skip("this system does not tell")
    assert 60 < peak < 80


def test_a_case_computes_the_same_either_way() -> None:
    for case in (composition_case(2, 6, 64, 24, CPU), loss_case(2, 6, 64, 16, CPU)):
        assert case.plain is not None
        case.work()
        case.plain()


@pytest.mark.parametrize("changes", [{}, {"distill": {"weight": 0}}, {"positive_weight": 2.0}])
def test_the_reference_of_eir_has_its_losses(changes: dict[str, object]) -> None:
    manifest = open_run(TINY, [f"method.{key}={value}" for key, value in changes.items()]).manifest
    compute = choose_compute(Runtime(device="cpu"))
    fast, plain = (training_setup(manifest, (3, 1), 2, compute, role) for role in ROLES)
    found, expected = (one.method.losses(one.model, one.method.prepare(one.batch)) for one in (fast, plain))
    assert found.keys() == expected.keys() == ({"bce"} if "distill" in changes else {"bce", "rskd"})
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_hours_are_of_all_images_of_all_steps(tmp_path: Path) -> None:
    made = open_run(TINY, ["train.iterations=10", "train.base.iterations=100"], tmp_path / "run")
    found = estimate(made, Speeds(base=2.0, incremental=3.0, evaluate=1.0, load=0.5), "float32")
    tests = [len(made.positions(step, "test")) for step in range(3)]
    expected = (100 * 4 * 2.0 + 2 * 10 * 4 * 3.0 + sum(tests)) / 3600
    assert math.isclose(found.hours, expected)
    slow = estimate(made, Speeds(base=2.0, incremental=3.0, evaluate=1.0, load=5.0), "float32")
    assert math.isclose(slow.hours, (5.0 * (100 * 4 + 2 * 10 * 4) + 5.0 * sum(tests)) / 3600)


def test_hours_count_the_share_of_replayed_samples_that_a_pass_has(tmp_path: Path) -> None:
    """A quarter of a pass: a third as many as there are new images."""
    made = open_run(
        TINY, ["train.iterations=null", "train.epochs=2", "method.replay_share=0.25", "memory.budget=99"], tmp_path / "run"
    )
    found = estimate(made, Speeds(base=1.0, incremental=1.0, evaluate=1.0, load=0.5), "float32")
    new = [len(made.positions(step, "train")) for step in (1, 2)]
    assert [step.samples for step in found.steps[1:]] == [count + round(count / 3) for count in new]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [([], "instances"), (["method.name=eir-plus", "method.slot=24"], "foveated"), (["method.name=image-replay"], "images")],
)
def test_what_an_exemplar_takes_is_told_of_the_kind_that_the_method_keeps(changes: list[str], kind: str) -> None:
    made = open_run(TINY, changes, look_only=True)
    found = codecs.exemplar_bytes(made, images=5)
    memory = made.manifest.memory
    assert found is not None
    costs = {one.kind: one for one in codecs.format_costs(made, images=5, formats=[(memory.encoding, memory.quality)])}
    assert found.exemplars == costs[kind].exemplars
    assert found.mean == pytest.approx(costs[kind].bytes)


def test_the_command_measures_a_recipe(monkeypatch: pytest.MonkeyPatch, one_thread: list[str]) -> None:
    monkeypatch.setattr(suite, "BANKS", (10, 20))
    found = CliRunner().invoke(app, ["bench", str(TINY), "--seconds", "0", "--against-plain", "--json", *one_thread])
    assert found.exit_code == 0, found.output
    facts = json.loads(found.stdout)
    rows = [row for section in facts["sections"].values() for row in section]
    assert all(row["milliseconds"] > 0 for row in rows)
    assert any(row["ratio"] is not None for row in rows)
    assert facts["estimate"]["hours"] > 0
    assert len(facts["estimate"]["steps"]) == 3
    console = Console(file=io.StringIO(), width=150)
    console.print(bench_table(from_json(BenchReport, found.stdout)))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "the whole recipe in float32: about" in printed
    assert all(row["name"] in printed for row in rows)


def test_the_command_without_a_recipe_draws_its_own_images() -> None:
    with suite.made_up_run(["data.crop_size=64", "method.slot=24"]) as made:
        assert len(made.schedule) == 2
        assert made.training_view(0).load(0).image.shape == (375, 500, 3)


def test_the_formats_of_exemplars_are_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "IMAGES", 5)
    run = open_run(TINY, look_only=True)
    formats: list[tuple[Encoding, int]] = [("jpeg", 95), ("jpeg", 40), ("png", 1)]
    found = {(cost.kind, cost.encoding, cost.quality): cost for cost in codecs.format_costs(run, 5, formats)}
    view = run.training_view(0)
    chosen = [view.load(int(position)).image for position in np.linspace(0, len(view) - 1, 5).astype(int)]
    whole = found["images", "jpeg", 40]
    assert whole.exemplars == 5
    assert whole.psnr == pytest.approx(np.mean([jpeg_psnr(image, 40) for image in chosen]))
    assert found["images", "png", 1].psnr == math.inf
    assert whole.bytes < found["images", "jpeg", 95].bytes
    assert found["images", "jpeg", 95].decoding == 1
    assert found["instances", "jpeg", 40].psnr < found["instances", "jpeg", 95].psnr
    codecs.main(str(TINY))
    assert "| images (5) | jpeg 60 | " in capsys.readouterr().out


def jpeg_psnr(image: UInt8Array, quality: int) -> float:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=0)
    pairs = zip(image.ravel().tolist(), np.asarray(Image.open(file)).ravel().tolist(), strict=True)
    return -10 * math.log10(sum((a - b) ** 2 for a, b in pairs) / image.size / 255**2)


def test_growth_is_tabulated_and_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, one_thread: list[str]) -> None:
    pytest.importorskip("matplotlib")
    for name, sizes in (("CHANNELS", (2, 5)), ("CROPS", (32, 64)), ("BANKS", (10, 20)), ("BATCHES", (1, 2))):
        monkeypatch.setattr(growth, name, sizes)
    monkeypatch.setattr(growth, "CROP", 128)
    monkeypatch.setattr(growth, "SLOT", 60)
    picture = tmp_path / "growth.png"
    found = CliRunner().invoke(app, ["bench", "--growth", "--seconds", "0", "--plot", str(picture), *one_thread])
    assert found.exit_code == 0, found.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "a random instance, ms" in found.stdout


def test_a_plot_without_growth_is_refused() -> None:
    found = CliRunner().invoke(app, ["bench", "--plot", "x.png"])
    assert found.exit_code != 0
    assert "--growth" in str(found.exception)
