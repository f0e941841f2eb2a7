"""`eir extend`: new classes from a new folder, and nothing of the old images."""

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.segmentation import deeplabv3_resnet50

import eircli
from eircli.cli.app import main
from eircli.common.errors import UserError
from eircli.common.types import DataSet, InstanceMap
from eircli.config.datasets import Extended, Folder
from eircli.data.extended import Relabelled, extended
from eircli.data.folder import folder
from eircli.memory.bank import Bank
from eircli.reports.status import status
from eircli.stages.extend import extend, extended_manifest

TINY = Path(__file__).parent / "tiny.yaml"

KNOWN, LATER = ("cat", "dog", "cow"), ("owl", "dog", "fox")


def draw(root: Path, names: tuple[str, ...], count: int = 9) -> Path:
    """A folder of images with a square each, of one class after the other."""
    generator = np.random.default_rng(len(names[0]))
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            label = np.zeros((40, 48), np.uint8)
            label[8:30, 10:34] = 1 + number % len(names)
            image = np.where(label[..., None] > 0, 80 * label[..., None], generator.integers(0, 40, (40, 48, 3)))
            Image.fromarray(image.astype(np.uint8)).save(root / f"images/{split}/{number}.png")
            Image.fromarray(label).save(root / f"annotations/{split}/{number}.png")
    (root / "classes.txt").write_text("\n".join(names))
    return root


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, in a folder with the data that it was made from."""
    place = tmp_path_factory.mktemp("extend")
    root = draw(place / "data", KNOWN)
    recipe = [f"dataset={{kind: folder, root: {root}}}", "protocol.schedule=[[1, 3], [2]]", "data.short_side=32"]
    eircli.run_protocol(eircli.open_run(TINY, recipe, place / "old"))
    return place / "old"


@pytest.fixture
def new_images(tmp_path: Path) -> Path:
    return draw(tmp_path / "new", LATER)


def command_line(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["eir", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def files(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_finished_run_holds_the_memory_of_a_step_to_come(old: Path) -> None:
    assert sorted(Bank(old / "step-2/bank.h5").per_class()) == [1, 2, 3]
    assert status(eircli.open_run(old)).next is None


def test_a_run_learns_new_classes_without_its_old_images(old: Path, new_images: Path, tmp_path: Path) -> None:
    moved = tmp_path / "old"
    shutil.copytree(old, moved)
    before = files(moved)
    text = (moved / "manifest.yaml").read_text().replace(str(old.parent / "data"), str(tmp_path / "gone"))
    (moved / "manifest.yaml").write_text(text)
    run = eircli.open_run(moved)
    manifest = extended_manifest(run, {"kind": "folder", "root": str(new_images)}, ["fox", "owl"])
    new, results = extend(run, manifest, tmp_path / "grown", lambda line: None)
    assert {name: content for name, content in files(moved).items() if name != "manifest.yaml"} == {
        name: content for name, content in before.items() if name != "manifest.yaml"
    }, "the run is left as it is"
    assert new.classes == ("cat", "dog", "cow", "fox", "owl")
    assert new.schedule.steps == ((1, 3), (2,), (4, 5))
    assert (results.step, [row.name for row in results.classes]) == (2, ["background", "cat", "cow", "dog", "fox", "owl"])
    assert sorted(Bank(tmp_path / "grown/step-2/bank.h5").per_class()) == [1, 2, 3]
    start, end = eircli.open_run(moved).model(1).state_dict(), new.model(1).state_dict()
    assert all(torch.equal(start[name], end[name]) for name in start), "it begins with the old model"
    assert eircli.load(new).names == ["background", "cat", "cow", "dog", "fox", "owl"]
    assert status(new).next is None
    assert eircli.results(new, 1).classes[3].name == "dog", "the old model is tested where the new images show what it knows"
    assert results.classes[3].forgetting is None, "the steps before it are not there"
    again = extended_manifest(new, {"kind": "folder", "root": str(draw(tmp_path / "third", ("bee",)))}, ["bee"])
    _, results = extend(new, again, tmp_path / "third-run", lambda line: None)
    assert [row.name for row in results.classes][-1] == "bee"
    assert sorted(Bank(tmp_path / "third-run/step-3/bank.h5").per_class()) == [1, 2, 3, 4, 5], (
        "built from the images of the step before"
    )


def test_known_classes_are_tested_on_old_and_new_images(old: Path, new_images: Path) -> None:
    run = eircli.open_run(old)
    manifest = extended_manifest(run, {"kind": "folder", "root": str(new_images)}, ["fox"])
    data = manifest.dataset
    assert isinstance(data, Extended)
    assert len(data.before) == 1
    held = extended_manifest(run, {"kind": "folder", "root": str(new_images)}, ["fox"], test_before=False).dataset
    assert isinstance(held, Extended)
    assert held.before == ()
    found = extended(data, opened(new_images), [opened(old.parent / "data")])
    assert found.classes == ("cat", "dog", "cow", "fox")
    for split, sources in (
        (found.train, [(new_images, "training", LATER)]),
        (found.val, [(new_images, "validation", LATER), (old.parent / "data", "validation", KNOWN)]),
    ):
        place = 0
        for root, part, names in sources:
            for number in range(9):
                own = np.array(Image.open(root / f"annotations/{part}/{number}.png"))
                expected = np.zeros_like(own)
                for class_id, name in enumerate(names, start=1):
                    if name in found.classes:
                        expected[own == class_id] = found.classes.index(name) + 1
                np.testing.assert_array_equal(split.load_label(place), expected)
                np.testing.assert_array_equal(split.load(place).label, expected)
                assert split.present(place) == sorted(np.unique(expected).tolist())
                place += 1
        assert place == len(split) == len(set(split.ids))


def opened(root: Path) -> DataSet:
    return folder(Folder(kind="folder", root=root))


def test_what_cannot_be_extended(old: Path, new_images: Path, tmp_path: Path) -> None:
    run, data = eircli.open_run(old), {"kind": "folder", "root": str(new_images)}
    with pytest.raises(UserError, match=r"knows dog already; it knows cat, cow, dog"):
        extended_manifest(run, data, ["dog"])
    with pytest.raises(UserError, match="a name occurs twice"):
        extended_manifest(run, data, ["fox", "fox"])
    with pytest.raises(UserError, match=r"'fxo' is not a class of the new data; did you mean fox\?"):
        extend(run, extended_manifest(run, data, ["fxo"]), tmp_path / "grown", lambda line: None)
    assert not (tmp_path / "grown").exists()
    with pytest.raises(UserError, match="wants one of images; to go on without replay"):
        extend(run, extended_manifest(run, data, ["fox"], ["method.name=image-replay"]), tmp_path / "grown", lambda line: None)
    empty = eircli.open_run(TINY, ["method.name=finetune"], tmp_path / "empty")
    with pytest.raises(UserError, match="no step is trained yet"):
        extended_manifest(empty, data, ["fox"])


def test_the_command(
    old: Path, new_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    eir = partial(command_line, monkeypatch)
    command = ["extend", str(old), "--data", str(new_images), "--classes", "fox, owl", "--set", "train.iterations=3"]
    assert eir(*command, "--json") == 0
    printed = capfd.readouterr()
    assert [row["name"] for row in json.loads(printed.out)["classes"]][-2:] == ["fox", "owl"]
    grown = old.parent / "tiny+fox+owl-seed0"
    assert f"next: eir predict {grown}" in printed.err
    model = (grown / "step-2/model.pt").stat().st_mtime_ns
    assert eir(*command) == 0
    assert (grown / "step-2/model.pt").stat().st_mtime_ns == model, "what is done is not done again"
    assert "is trained already" in capfd.readouterr().err
    section = f"{{kind: folder, root: {new_images}, classes: [fox]}}"
    out = ["--out", str(tmp_path / "only-fox"), "--set", "train.iterations=2"]
    assert eir("extend", str(old), "--data", section, "--classes", "fox", *out) == 0
    capfd.readouterr()
    assert eir("extend", str(old), "--data", str(new_images), "--classes", "fox,") == 2
    assert "write names with commas" in capfd.readouterr().err
    assert eir("extend", str(TINY), "--data", str(new_images), "--classes", "fox") == 2
    assert "give a run directory" in capfd.readouterr().err


def test_objects_told_apart_in_the_new_images_keep_their_classes(new_images: Path) -> None:
    """A split of instances, relabelled; and a run that keeps instances, extended with images that do not tell them apart."""
    numbers = np.array([[1, 2, 0], [1, 3, 3]], np.int32)

    class Told(Relabelled):
        def load_instances(self, index: int) -> InstanceMap:
            return InstanceMap(numbers, np.array([3, 1, 2], np.uint8))

    told = Told(opened(new_images).train, LATER, LATER)
    found = Relabelled(told, LATER, ("cat", "dog", "cow", "fox")).load_instances(0)
    np.testing.assert_array_equal(found.numbers, numbers)
    assert found.labels.tolist() == [4, 0, 2], "fox, an owl that does not count, a dog"


def test_torchvision_s_network_learns_a_new_class(
    new_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its 21 classes, in its own naming, without a data set; then a class that it does not know, and nothing to replay."""

    eir = partial(command_line, monkeypatch)
    network = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21)
    torch.save(network.state_dict(), tmp_path / "deeplab.pth")
    (tmp_path / "voc.yaml").write_text(
        f"dataset: {{kind: voc, root: {tmp_path / 'nowhere'}}}\nprotocol: {{schedule: joint}}\nmethod: {{name: eir, slot: 16}}\n"
        "model: {backbone: resnet50}\ndata: {crop_size: 32, short_side: 32}\nruntime: {workers: 0, device: cpu}\n"
        "train: {batch_size: 2, base: {batch_size: 2}}\n"
    )
    run = str(tmp_path / "run")
    assert (
        eir(
            "import-checkpoint",
            str(tmp_path / "deeplab.pth"),
            "--into",
            str(tmp_path / "voc.yaml"),
            "--step",
            "0",
            "--run-dir",
            run,
        )
        == 0
    )
    grow = [
        "extend",
        run,
        "--data",
        str(new_images),
        "--classes",
        "fox",
        "--out",
        str(tmp_path / "grown"),
        "--set",
        "train.iterations=1",
    ]
    assert eir(*grow) == 2
    assert "holds no memory of its classes, and its data set is not there; to go on without replay" in capfd.readouterr().err
    without = ["--set", "method.fusion=false", "--set", "method.standalone_replay=false"]
    assert eir(*grow, *without) == 0
    names = eircli.load(tmp_path / "grown").names
    assert (len(names), names[-1], "dog" in names) == (22, "fox", True)
