"""Whole runs of every method, of seconds, on one shared base step."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eircli.common.errors import UserError
from eircli.engine import train as loop
from eircli.memory.bank import Bank
from eircli.memory.harvest import candidate_mask, candidates
from eircli.memory.mixtures import Mixtures
from eircli.memory.prototypes import Prototypes
from eircli.memory.tensor_file import read_tensors
from eircli.model.deeplab import DeepLab
from eircli.reports.bank import bank_facts
from eircli.reports.status import status
from eircli.run.models import load_model
from eircli.run.run import Run, open_run
from eircli.run.step import training_set
from eircli.stages.base_steps import base_step_lock, publish_base_step, shared_checkpoint
from eircli.stages.build_memory import build_memory
from eircli.stages.run_protocol import run_protocol
from eircli.stages.score_candidates import score_candidates
from eircli.stages.train import train

TINY = Path(__file__).parent / "tiny.yaml"

METHODS = {
    "finetune": "{name: finetune}",
    "dft": "{name: dft}",
    "dft-future": "{name: dft, base_step: own, future_channels: true}",
    "lwf": "{name: lwf}",
    "ilt": "{name: ilt}",
    "mib": "{name: mib}",
    "mbs": "{name: mbs}",
    "mbs-selective": "{name: mbs, background: selective}",
    "plop": "{name: plop}",
    "dkd": "{name: dkd}",
    "dkd-m": "{name: dkd, memory: true}",
    "ssul": "{name: ssul}",
    "ssul-m": "{name: ssul, memory: true}",
    "star": "{name: star}",
    "cogamid": "{name: cogamid}",
    "cogamid-diagonal": "{name: cogamid, covariance: diagonal}",
    "image-replay": "{name: image-replay}",
    "image-replay-foveated": "{name: image-replay, memory: foveated, missing: ignore}",
    "image-replay-decomposed": "{name: image-replay, missing: ignore, distill: {loss: decomposed}, replay_share: 0.3}",
    "eir-plus": "{name: eir-plus, slot: 16, threshold: 0.3}",
    "eir-foveated": "{name: eir, slot: 16, threshold: 0.3, memory: foveated, surroundings: ignore}",
}
KEPT = {"dkd-m": "images", "ssul-m": "images", "image-replay": "images", "star": "prototypes"}
KEPT |= dict.fromkeys(("cogamid", "cogamid-diagonal"), "mixtures")
KEPT |= {"image-replay-decomposed": "images", "eir-plus": "foveated"}
KEPT |= {name: "foveated" for name in METHODS if name.endswith("foveated")}


def quiet(_: str) -> None:
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this module's runs, which share their base step."""
    return tmp_path_factory.mktemp("runs")


def run_in(folder: Path, name: str, *overrides: str) -> Run:
    return open_run(TINY, ["runtime.share_base_step=true", *overrides], folder / name)


def finished(folder: Path, name: str) -> Run:
    run = run_in(folder, name, f"method={METHODS[name]}")
    with run.locked():
        run_protocol(run, quiet)
    return run


def state(run: Run, step: int) -> dict[str, torch.Tensor]:
    return dict(torch.load(run.directory.checkpoint(step), weights_only=True)["model"])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_its_steps(folder: Path, name: str) -> None:
    run = finished(folder, name)
    results = [json.loads(run.directory.results(step).read_text()) for step in range(3)]
    assert [len(step["classes"]) for step in results] == [3, 4, 5]
    assert all(np.isfinite(step["all"]) for step in results)
    assert run.manifest.method.keeps == KEPT.get(name)
    for step in (1, 2):
        assert ("bank" in run.directory.steps[step]) == (name in KEPT)
        if name in KEPT:
            facts = bank_facts(run, step)
            assert facts.kind == KEPT[name]
            assert 0 < facts.bytes < 200_000
            assert sum(facts.per_class.values()) == facts.exemplars
    unknown = name.startswith("ssul")
    before, after = state(run, 1), state(run, 2)
    assert torch.equal(before["backbone.stem.0.weight"], after["backbone.stem.0.weight"]) == (unknown or name.startswith("dft"))
    assert ("unknown.weight" in after) == unknown
    if name == "dft-future":
        for kept, steps_to_come in ((state(run, 0), 2), (before, 1)):
            assert kept.pop("reserved.weight").shape[0] == kept.pop("reserved.bias").shape[0] == steps_to_come
    if name.startswith("dft"):
        assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("relabelled", [True, False])
def test_stored_images_show_the_steps_classes_as_the_label_files_do_if_asked(tmp_path: Path, relabelled: bool) -> None:
    """Of every stored image, whether or not it is among the step's: an overlapped step has all images of its classes."""
    asked = f"memory.current_labels={str(relabelled).lower()}"
    run = run_in(tmp_path, "x", "method={name: dkd, memory: true}", "dataset.co_occurrence=1", "memory.budget=20", asked)
    with run.locked():
        build_memory(run, 1, quiet)
    bank, old, new = Bank(run.directory.bank(1)), run.memory_table(1), run.schedule.channel_table(run.schedule.new(1), 1)
    stored, shown = training_set(run, 1, bank.path).replayed[0], 0
    for index in range(len(bank)):
        source = bank.load_image(index)
        label = run.dataset.train.load_label(run.dataset.train.ids.index(source.source))
        also = np.where(old[source.label] == 0, new[label], old[source.label])
        np.testing.assert_array_equal(stored.load(index).label, also if relabelled else old[source.label])
        shown += int((also != old[source.label]).sum())
    assert shown > 0


@pytest.mark.parametrize(
    "name", ["plop", "star", "ssul", "image-replay", "dft-future", "mbs", "cogamid", "eir-foveated", "eir-plus"]
)
def test_a_method_with_a_state_of_its_own_resumes_to_the_same_weights(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finished(folder, name)
    run = run_in(folder, f"{name}-broken", f"method={METHODS[name]}", "runtime.checkpoint_minutes=0")
    true_step, calls = loop.train_step, 0

    def dying_step(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (3, 9):
            raise MemoryError("the machine went down")
        return true_step(*args)

    monkeypatch.setattr(loop, "train_step", dying_step)
    for _ in range(2):
        with run.locked(), pytest.raises(MemoryError):
            run_protocol(run, quiet)
    with run.locked():
        run_protocol(run, quiet)
    assert calls > 12
    for step in range(3):
        ours, theirs = state(run, step), state(whole, step)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_replayed_and_pasted_samples_are_as_the_method_says(folder: Path) -> None:
    """A bounded share of replay and own pastes, in the steps after the base step alone."""
    run = finished(folder, "eir-plus")
    base, later = training_set(run, 0, None), training_set(run, 1, run.directory.bank(1))
    assert (base.own_pastes, base.places) == (0, 0)
    assert later.own_pastes == 0.3
    assert later.kept == len(Bank(run.directory.bank(1)))
    assert later.places == min(later.kept, round(0.35 / 0.65 * len(later.new)))


def test_the_base_step_is_trained_once(tmp_path: Path) -> None:
    one, other = finished(tmp_path, "finetune"), finished(tmp_path, "mib")
    records = [run.directory.steps[0]["checkpoint"] for run in (one, other)]
    assert records[0].sha256 == records[1].sha256
    assert {record.facts["base_step"] for record in records} == {one.base_fingerprint}
    trained = [path.parent.parent.name for path in tmp_path.glob("*/step-0/journal.jsonl")]
    assert len(trained) == 1


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("memory.budget=5", True),
        ("train.lr=0.1", True),
        ("model.new_classifier=random", True),
        ("protocol.setting=disjoint", False),
        ("train.base.lr=0.2", False),
        ("seed=1", False),
        ("data.flip=0.1", False),
        ("method={name: mib}", True),
        ("method={name: mib, base_step: own}", False),
        ("method={name: dft}", True),
        ("method={name: finetune, positive_weight: 2}", True),
        ("method={name: finetune, base_positive_weight: 2}", False),
        ("protocol.schedule=2-2", True),
        ("protocol.schedule=3-1", False),
        ("runtime.workers=1", True),
        ("data.cache=none", True),
    ],
)
def test_what_a_base_step_depends_on(folder: Path, change: str, same: bool) -> None:
    plain = run_in(folder, "x", "protocol.schedule=2-1")
    changed = run_in(folder, "x", "protocol.schedule=2-1", change)
    assert (plain.base_fingerprint == changed.base_fingerprint) is same


@pytest.mark.parametrize(("method", "same"), [("dft", True), ("dft-future", False)])
def test_future_channels_depend_on_how_many_classes_come(folder: Path, method: str, same: bool) -> None:
    one, two = (run_in(folder, "x", f"method={METHODS[method]}", f"protocol.schedule={s}") for s in ("2-1", "[[1, 2], [3]]"))
    assert (one.base_fingerprint == two.base_fingerprint) is same


def test_in_a_partition_the_whole_schedule_decides_the_base_step(folder: Path) -> None:
    one, two = (run_in(folder, "x", "protocol.setting=partitioned", f"protocol.schedule={s}") for s in ("2-1", "2-2"))
    assert one.base_fingerprint != two.base_fingerprint


def test_a_damaged_shared_base_step_is_trained_anew_and_said(tmp_path: Path) -> None:
    said: list[str] = []
    first = run_in(tmp_path, "a", "train.base.iterations=3")
    with first.locked():
        train(first, 0, quiet)
    shared = shared_checkpoint(first)
    content = bytearray(shared.read_bytes())
    content[len(content) // 2] ^= 255
    shared.unlink()
    shared.write_bytes(content)
    second = run_in(tmp_path, "b", "train.base.iterations=3")
    with second.locked():
        train(second, 0, said.append)
    assert "damaged" in said[0]
    assert "training the base step anew" in said[0]
    assert all(torch.equal(a, b) for a, b in zip(state(first, 0).values(), state(second, 0).values(), strict=True))
    assert load_model(first, 0)
    third = run_in(tmp_path, "c", "train.base.iterations=3")
    with third.locked():
        train(third, 0, said.append)
    assert "the same as another run's" in said[-1], "the damaged one has been replaced"


def test_other_data_and_other_weights_are_another_base_step(tmp_path: Path) -> None:
    """Settings alike, files not: a folder's pictures, and a file of starting weights."""
    root = tmp_path / "data"
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for name in "abcd":
            Image.fromarray(np.full((32, 32, 3), 9, np.uint8)).save(root / f"images/{split}/{name}.png")
            Image.fromarray(np.full((32, 32), 1 + ord(name) % 2, np.uint8)).save(root / f"annotations/{split}/{name}.png")
    (root / "classes.txt").write_text("cat\ndog\n")
    weights = tmp_path / "w.pt"
    torch.save(DeepLab(run_in(tmp_path, "x").manifest.model, [1]).backbone.state_dict(), weights)
    data = f"dataset={{kind: folder, root: {root}}}"
    run = run_in(tmp_path, "x", data, f"model.weights={weights}", "protocol.schedule=1-1")
    before = shared_checkpoint(run)
    assert shared_checkpoint(run) == before
    Image.fromarray(np.full((32, 32, 3), 10, np.uint8)).save(root / "images/training/a.png")
    os.utime(root / "images/training/a.png", ns=(1, 1))
    other_picture = shared_checkpoint(run)
    torch.save({"x": torch.ones(1)}, weights)
    assert len({before, other_picture, shared_checkpoint(run)}) == 3
    assert (
        run.base_fingerprint == run_in(tmp_path, "x", data, f"model.weights={weights}", "protocol.schedule=1-1").base_fingerprint
    )


def test_who_needs_a_base_step_that_is_being_trained_waits_for_it(tmp_path: Path) -> None:
    first = run_in(tmp_path, "a", "train.base.iterations=3", "runtime.share_base_step=false")
    said: list[str] = []

    def second() -> None:
        run = run_in(tmp_path, "b", "train.base.iterations=3")
        with run.locked():
            train(run, 0, said.append)

    with base_step_lock(first, quiet):
        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 30
        while not said:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert said == ["step 0: another run is training the same base step; waiting for it"]
        with first.locked():
            train(first, 0, quiet)
            publish_base_step(first)
    thread.join(timeout=60)
    assert "the same as another run's" in said[1]
    assert first.directory.checkpoint(0).samefile(tmp_path / "b/step-0/model.pt")


def test_a_shared_base_step_leaves_nothing_unfinished(tmp_path: Path) -> None:
    first, second = (run_in(tmp_path, name, "train.base.iterations=3") for name in "ab")
    with second.locked():
        second.directory.step_path(0).mkdir()
        second.directory.resume_file(0).write_bytes(b"begun")
    for run in (first, second):
        with run.locked():
            train(run, 0, quiet)
    assert not status(second).steps[0].unfinished


def test_scores_are_means_over_the_candidates_pixels(folder: Path) -> None:
    run = finished(folder, "finetune")
    view, model = run.training_view(0), load_model(run, 0).eval()
    found = [c for i in range(6) for c in candidates(view.load_label(i), [1, 2], i, "component", 9)]
    for candidate, score in zip(found, score_candidates(run, 0, view, found), strict=True):
        image, label = view.load(candidate.image)
        mask = candidate_mask(label, candidate)
        with torch.no_grad():
            features = model.features(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
            low = model.classify(features)
        high = torch.nn.functional.interpolate(low, label.shape, mode="bilinear")[0, candidate.channel].sigmoid()
        pixels = [(r, c) for r, c in np.ndindex(*label.shape) if mask[r, c]]
        assert score.confidence == pytest.approx(float(np.mean([float(high[r, c]) for r, c in pixels])), rel=1e-4)
        side = label.shape[0] // features.shape[2]
        mean = sum(features[0, :, r // side, c // side] for r, c in pixels) / len(pixels)
        torch.testing.assert_close(torch.from_numpy(score.feature), torch.nn.functional.normalize(torch.as_tensor(mean), dim=0))


@pytest.mark.parametrize("rule", ["largest", "confident", "diverse"])
@pytest.mark.parametrize("method", ["{name: eir, slot: 16}", "{name: image-replay}"])
def test_the_rules_choose_on_real_candidates_and_are_remembered(folder: Path, rule: str, method: str) -> None:
    run = run_in(folder, f"{rule}-{len(method)}", f"method={method}", f"memory.rule={rule}")
    if rule != "largest":
        with run.locked(), pytest.raises(UserError, match="step 0 has no checkpoint yet; run: eir train"):
            build_memory(run, 1, quiet)
    with run.locked():
        train(run, 0, quiet)
        build_memory(run, 1, quiet)
    bank = Bank(run.directory.bank(1))
    assert bank.facts["rule"] == rule
    if rule == "largest":
        for class_id in (1, 2):
            areas = bank.index["area"][bank.index["class_id"] == class_id].tolist()
            assert areas == sorted(areas, reverse=True)


def test_old_exemplars_leave_from_the_end_of_their_ranking(folder: Path) -> None:
    run = run_in(folder, "ranked", "memory.rule=largest", "memory.budget=6")
    with run.locked():
        for step in (0, 1):
            train(run, step, quiet)
            build_memory(run, step + 1, quiet)
    one, two = Bank(run.directory.bank(1)), Bank(run.directory.bank(2))
    for class_id in (1, 2):
        before, after = (b.index[b.index["class_id"] == class_id] for b in (one, two))
        assert 0 < len(after) < len(before)
        assert after["checksum"].tolist() == before["checksum"][: len(after)].tolist()


@pytest.mark.parametrize("method", ["{name: eir, slot: 16}", "{name: image-replay}"])
def test_a_budget_in_bytes(folder: Path, method: str) -> None:
    run = run_in(folder, f"bytes-{len(method)}", f"method={method}", "memory.budget=9kB")
    with run.locked():
        for step in (0, 1):
            train(run, step, quiet)
            build_memory(run, step + 1, quiet)
    for step in (1, 2):
        facts = bank_facts(run, step)
        records = [Bank(run.directory.bank(step)).record(i) for i in range(facts.exemplars)]
        assert facts.bytes == sum(record.size for record in records) <= 9000
        assert facts.bytes > 9000 - max(record.size for record in records)
        assert facts.budget == "9kB"


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        (["memory.budget=9B"], r"try --set memory\.selection=component, or a larger memory\.budget \(9 bytes\)"),
        (["memory.budget=9B", "memory.selection=component"], r"try a larger memory\.budget \(9 bytes\)"),
        (["memory.budget=9B", "method={name: image-replay}"], r"try a larger memory\.budget \(9 bytes\)"),
    ],
)
def test_a_memory_that_can_hold_nothing_says_what_to_do(tmp_path: Path, changes: list[str], remedy: str) -> None:
    run = run_in(tmp_path, "x", *changes)
    with run.locked(), pytest.raises(UserError, match=f"step 1: nothing could be kept; {remedy}$"):
        build_memory(run, 1, quiet)


def test_star_keeps_prototypes_of_all_old_classes(folder: Path) -> None:
    run = finished(folder, "star")
    one, two = (read_tensors(run.directory.bank(step), "prototypes", Prototypes) for step in (1, 2))
    assert one.class_ids.tolist() == [1, 2]
    assert two.class_ids.tolist() == [1, 2, 3]
    assert torch.equal(two.direction[:2], one.direction)
    assert float(two.background) > float(one.background)
    assert torch.allclose(two.direction.norm(dim=1), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize("name", ["cogamid", "cogamid-diagonal"])
def test_cogamid_keeps_mixtures_of_all_old_classes(folder: Path, name: str) -> None:
    run = finished(folder, name)
    one, two = (read_tensors(run.directory.bank(step), "mixtures", Mixtures) for step in (1, 2))
    assert two.class_ids.tolist() == [1, 2, 3]
    assert torch.equal(two.means[:2], one.means)
    floats = 16 if name == "cogamid-diagonal" else 16 * 16
    for kept, step in ((one, 1), (two, 2)):
        assert bank_facts(run, step).bytes == len(kept.class_ids) * (8 + 4 + 3 * 4 * (1 + 16 + floats)) + 4


@pytest.mark.parametrize("method", ["finetune", "eir", "ssul"])
def test_new_classifiers_start_from_similar_ones_whatever_the_method(folder: Path, method: str) -> None:
    options = "{name: eir, slot: 16}" if method == "eir" else METHODS[method]
    changes = [f"method={options}", "train.iterations=1", "train.lr=1e-9", "train.batch_size=12"]
    runs = [run_in(folder, f"{method}-{start}", *changes, f"model.new_classifier={start}") for start in ("similar", "background")]
    for run in runs:
        with run.locked():
            for step in (0, 1):
                train(run, step, quiet)
    similar, background = (state(run, 1)["classifiers.2.weight"] for run in runs)
    old = state(runs[0], 0)["classifiers.1.weight"].flatten(1)
    torch.testing.assert_close(background, state(runs[1], 0)["classifiers.0.weight"])
    weight = similar.flatten(1)
    share = float(((weight - old[1]) @ (old[0] - old[1])) / (old[0] - old[1]).square().sum())
    torch.testing.assert_close(weight[0], share * old[0] + (1 - share) * old[1], atol=0.05 * float(old.std()), rtol=0)


def test_partitioned_steps_share_no_image(folder: Path) -> None:
    run = run_in(folder, "partitioned", "protocol.setting=partitioned")
    ids = [set(run.training_view(step).ids) for step in range(3)]
    assert sum(len(step) for step in ids) == len(set().union(*ids))


@pytest.mark.parametrize(
    ("method", "rule", "goes"), [("star", "random", True), ("image-replay", "diverse", True), ("image-replay", "random", False)]
)
def test_a_new_checkpoint_makes_memories_obsolete_that_its_model_made(tmp_path: Path, method: str, rule: str, goes: bool) -> None:
    run = run_in(tmp_path, "x", f"method={METHODS[method]}", f"memory.rule={rule}", "train.base.iterations=2")
    with run.locked():
        run_protocol(run, quiet)
        checkpoint = run.directory.checkpoint(0)
        state_ = torch.load(checkpoint, weights_only=True)
        state_["model"]["classifiers.1.bias"] += 1
        checkpoint.unlink()
        torch.save(state_, checkpoint)
        run.directory.record(0, "checkpoint", checkpoint)
    assert [("bank" in run.directory.steps.get(step, {})) for step in (1, 2)] == 2 * [not goes]
    assert "checkpoint" not in run.directory.steps.get(1, {})
