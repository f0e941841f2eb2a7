"""A folder's layout recognised, and a recipe written for it that runs."""

import json
import shutil
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from eircli.common.errors import UserError
from eircli.config.datasets import Dataset
from eircli.config.recipe import load_recipe, resolve
from eircli.data.recognise import recognise
from eircli.reports.data_check import check_data
from eircli.run.run import Run
from eircli.run.rundir import RunDir
from eircli.stages.new_recipe import recipe_text, schedule
from tests.test_check_data import made
from tests.test_cli import eir
from tests.test_data import damage
from tests.test_prepare_data import Server, prepared, server, small  # noqa: F401


def test_folder_layouts(tmp_path: Path) -> None:
    made(tmp_path)
    assert recognise(tmp_path).dataset == {"kind": "folder", "root": str(tmp_path)}
    for folder in ("images", "annotations"):
        (tmp_path / folder / "training").rename(tmp_path / folder / "train")
        (tmp_path / folder / "validation").rename(tmp_path / folder / "val")
    assert recognise(tmp_path).dataset == {"kind": "folder", "root": str(tmp_path), "train_split": "train", "val_split": "val"}
    for folder in ("images", "annotations"):
        shutil.rmtree(tmp_path / folder / "val")
    found = recognise(tmp_path)
    assert (found.dataset["val_split"], found.dataset["hold_out"]) == ("train", 5)
    assert "every 5th training image is held out" in found.notes[0]


def test_ade20k_layout(tmp_path: Path) -> None:
    made(tmp_path / "ADEChallengeData2016")
    (tmp_path / "ADEChallengeData2016/classes.txt").unlink()
    assert recognise(tmp_path).dataset["kind"] == recognise(tmp_path / "ADEChallengeData2016").dataset["kind"] == "ade20k"


def test_voc_layouts(small: Server, tmp_path: Path) -> None:  # noqa: F811
    root = tmp_path / "VOCdevkit/VOC2012"
    prepared(root)
    assert recognise(tmp_path).dataset == {"kind": "voc", "root": str(root)}
    shutil.rmtree(root / "SegmentationClassAug")
    found = recognise(root)
    assert found.dataset["train_list"] == "train"
    assert f"eir prepare-data voc --root {root}" in found.notes[0]


def flat(root: Path, masks: str) -> Path:
    """Images and masks of the same names, without splits."""
    made(root / "made")
    for ours, theirs in (("images", "images"), ("annotations", masks)):
        shutil.move(root / f"made/{ours}/training", root / theirs)
    shutil.rmtree(root / "made")
    return root


def test_images_and_masks_without_splits(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name these folders images and annotations"):
        recognise(flat(tmp_path / "a", "masks"))
    found = recognise(flat(tmp_path / "b", "annotations"))
    assert (found.dataset["kind"], found.dataset["train_split"], found.dataset["hold_out"]) == ("folder", ".", 5)


COCO = json.dumps({"images": [{"file_name": "a.jpg"}], "annotations": [], "categories": []})
LABELME = json.dumps({"shapes": [], "imagePath": "a.jpg"})


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"annotations/instances.json": COCO, "pictures/a.jpg": ""},
            {"kind": "coco", "train": "annotations/instances.json", "train_images": "pictures", "val_every": 5},
        ),
        (
            {"train/_annotations.coco.json": COCO, "train/a.jpg": "", "valid/_annotations.coco.json": COCO, "valid/a.jpg": ""},
            {"kind": "coco", "train": "train/_annotations.coco.json", "val": "valid/_annotations.coco.json"},
        ),
        (
            {"annotations/instances_train2017.json": COCO, "annotations/instances_val2017.json": COCO, "images/a.jpg": ""},
            {
                "kind": "coco",
                "train": "annotations/instances_train2017.json",
                "train_images": "images",
                "val": "annotations/instances_val2017.json",
                "val_images": "images",
            },
        ),
        ({"a.json": LABELME}, {"kind": "labelme", "val_every": 5}),
        ({"train/a.json": LABELME, "val/a.json": LABELME}, {"kind": "labelme", "train": "train", "val": "val"}),
        ({"data.yaml": "names: [a, b]\ntrain: images", "labels/a.txt": ""}, {"kind": "yolo", "val_every": 5}),
        (
            {"own.yml": "names: [a, b]\ntrain: images/train\nval: images/val", "labels/train/a.txt": ""},
            {"kind": "yolo", "data": "own.yml"},
        ),
        (
            {"labelmap.txt": "a:1,2,3::", "ImageSets/Segmentation/default.txt": "a"},
            {"kind": "masks", "train": "default", "val_every": 5},
        ),
        (
            {
                "labelmap.txt": "a:1,2,3::",
                "ImageSets/Segmentation/train.txt": "a",
                "ImageSets/Segmentation/val.txt": "a",
                "SegmentationObject/a.png": "",
            },
            {"kind": "masks", "train": "train", "val": "val", "objects": "SegmentationObject"},
        ),
    ],
)
def test_annotations_of_other_programs(tmp_path: Path, files: dict[str, str], expected: dict[str, object]) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = recognise(tmp_path)
    assert found.dataset == {"root": str(tmp_path), **expected}
    assert bool(found.notes) == ("val_every" in expected)
    TypeAdapter(Dataset).validate_python(found.dataset)


def test_cvat_s_own_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "annotations.xml").write_text('<?xml version="1.0"?>\n<annotations><version>1.1</version></annotations>')
    with pytest.raises(UserError, match=r"annotations\.xml: is CVAT's own format.*export as COCO 1\.0 or Segmentation mask 1\.1"):
        recognise(tmp_path)


def test_nothing_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        recognise(tmp_path / "nothing")
    with pytest.raises(UserError, match="no layout that is known"):
        recognise(tmp_path)


@pytest.mark.parametrize("gpu", [True, False])
@pytest.mark.parametrize("installed", [True, False])
def test_recipes_are_valid_and_of_the_machine(
    tmp_path: Path, gpu: bool, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eircli.stages.new_recipe._pretrained_is_installed", lambda: installed)
    made(tmp_path)
    dataset = recognise(tmp_path).dataset
    paper = resolve({"name": "x", "dataset": dataset, "protocol": {"schedule": "joint"}, "method": {"name": "eir"}})
    report = check_data(Run(RunDir(tmp_path / "run", paper, "x"), recorded_classes=False))
    path = tmp_path / "own.yaml"
    path.write_text(recipe_text("own.yaml", dataset, report, paper, gpu))
    manifest = load_recipe(path)
    assert manifest.protocol.schedule == "2-1"
    expected = ("resnet101", 96) if gpu else ("efficientnet_lite0", 128) if installed else ("tiny", 96)
    assert (manifest.model.backbone, manifest.data.crop_size) == expected
    assert manifest.method.slot_side == manifest.data.crop_size // 2
    if gpu:
        assert (manifest.train.epochs, manifest.train.batch_size) == (60, 24)


def test_schedules_leave_the_last_fifth_for_later() -> None:
    assert [schedule(count) for count in (1, 2, 3, 10, 150)] == ["joint", "1-1", "2-1", "8-2", "120-30"]


@pytest.mark.parametrize("installed", [True, False])
def test_the_written_recipe_runs(
    tmp_path: Path, installed: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two iterations a step of it, on images without test images and names."""
    monkeypatch.setattr("eircli.benchmark.quick.SECONDS", 0.0)
    if not installed:
        monkeypatch.setattr("eircli.stages.new_recipe._pretrained_is_installed", lambda: False)
    labels = [(1, 2), (2,), (3, 1), (1, 3), (3, 2), (2, 3), (1,), (3,), (2, 1), (1, 2, 3)]
    made(tmp_path / "photos", {"training": labels})
    (tmp_path / "photos/classes.txt").unlink()
    monkeypatch.chdir(tmp_path)
    assert eir("init", "photos", "--device", "cpu", monkeypatch=monkeypatch) == 0
    printed = capfd.readouterr()
    for expected in (
        "found: a folder of images and annotations",
        "photos/classes.txt now names class-1 to class-3; give them their names",
        "every 5th training image is held out",
        "training: 8 images, 16x12 pixels",
        "recipe: photos.yaml",
        "on this machine: about ",
    ):
        assert expected in printed.out
    assert "next: eir run-protocol photos.yaml" in printed.err
    assert (tmp_path / "photos/classes.txt").read_text() == "class-1\nclass-2\nclass-3\n"
    quick = ["--device", "cpu"]
    for change in ("iterations=2", "batch_size=2", "base.batch_size=2"):
        quick += ["--set", f"train.{change}"]
    assert eir("run-protocol", "photos.yaml", *quick, monkeypatch=monkeypatch) == 0
    assert "next: eir evaluate" in capfd.readouterr().out


def test_a_recipe_that_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    made(tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("eircli.cli.init._estimate", lambda *_: None)
    Path("own.yaml").write_text("mine")
    assert eir("init", "own", monkeypatch=monkeypatch) == 2
    assert "eir: own.yaml: is there already; give another name with --recipe, or --force" in capfd.readouterr().err
    assert Path("own.yaml").read_text() == "mine"
    assert eir("init", "own", "--force", "--device", "cpu", monkeypatch=monkeypatch) == 0
    assert load_recipe(Path("own.yaml")).name == "own"
    capfd.readouterr()
    damage(tmp_path / "own", "id")
    assert eir("init", "own", "--recipe", "b.yaml", "--device", "cpu", monkeypatch=monkeypatch) == 2
    printed = capfd.readouterr()
    assert "t1.png: holds id 9" in printed.out
    assert "next: put the errors right, then eir check-data b.yaml" in printed.err
