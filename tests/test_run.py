"""A run opened lazily: what is known of it without its data set, and its models applied to bare images."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from eircli.cli.app import main
from eircli.common.errors import UserError
from eircli.common.types import UInt8Array
from eircli.reports.comparison import compare
from eircli.reports.status import status
from eircli.reports.step import describe_step
from eircli.run.predictor import Predictor
from eircli.run.run import open_run
from eircli.stages.evaluate import evaluate
from eircli.stages.run_protocol import run_protocol

TINY = Path(__file__).parent / "tiny.yaml"


def quiet(_: str) -> None:
    return None


def draw_folder(root: Path, names: str = "cat\ndog\ncow\n") -> None:
    """A folder data set of squares of differing sizes, larger than the network's short side."""
    generator = np.random.default_rng(0)
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for number in range(9):
            height, width = 40 + number, 60 - number
            label = np.zeros((height, width), np.uint8)
            label[8:30, 10:34] = 1 + number % 3
            image = np.where(label[..., None] > 0, 80 * label[..., None], generator.integers(0, 40, (height, width, 3)))
            Image.fromarray(image.astype(np.uint8)).save(root / f"images/{split}/{number}.png")
            Image.fromarray(label).save(root / f"annotations/{split}/{number}.png")
    (root / "classes.txt").write_text(names)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a folder that is gone since."""
    folder = tmp_path_factory.mktemp("lazy")
    draw_folder(folder / "data")
    overrides = [f"dataset={{kind: folder, root: {folder / 'data'}}}", "protocol.schedule=1-1", "data.short_side=32"]
    run = open_run(TINY, overrides, folder / "run").checked()
    with pytest.MonkeyPatch.context() as patch, run.locked():
        patch.setenv("EIR_CACHE", str(folder / "cache"))
        run_protocol(run, quiet)
        evaluate(run, 2, quiet, full_size=True)
    shutil.move(folder / "data", folder / "elsewhere")
    return folder / "run"


def test_a_finished_run_needs_no_data_set_to_be_looked_at(finished: Path) -> None:
    run = open_run(finished)
    assert run.classes == ("cat", "dog", "cow")
    assert [len(run.schedule.seen(step)) for step in range(3)] == [1, 2, 3]
    assert status(run).next is None
    assert compare([run]).runs[0].steps[2]["all"].mean is not None
    assert yaml.safe_load((finished / "manifest.yaml").read_text())["classes"] == ["cat", "dog", "cow"]
    with pytest.raises(UserError, match=r"dataset\.root: .*data is no folder"):
        run.checked()


def test_a_model_is_one_call_away(finished: Path) -> None:
    run = open_run(finished)
    for step in range(3):
        assert run.model(step)(torch.zeros(1, 3, 32, 32)).shape[1] == 2 + step
    with pytest.raises(UserError, match="step 3 has no checkpoint"):
        run.model(3)


def test_an_image_without_a_label_is_predicted_as_in_evaluation(finished: Path) -> None:
    """The predictions of bare images, counted here, are the figures of `evaluate --full-size`."""
    predictor = Predictor(open_run(finished), 2)
    assert predictor.names == ["background", "cat", "dog", "cow"]
    counts = np.zeros((4, 4), np.int64)
    for number in range(9):
        picture: UInt8Array = np.array(Image.open(finished.parent / f"elsewhere/images/validation/{number}.png"))
        truth = np.array(Image.open(finished.parent / f"elsewhere/annotations/validation/{number}.png"))
        guess = predictor.predict(picture)
        assert guess.shape == picture.shape[:2]
        for t, p in zip(truth.ravel().tolist(), guess.ravel().tolist(), strict=True):
            counts[t, p] += 1
    lines = (finished / "step-2/confusion-full-size.csv").read_text().splitlines()[1:]
    np.testing.assert_array_equal(counts, np.array([line.split(",")[1:] for line in lines], np.int64))


def test_status_of_voc_without_voc(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["eir", "status", str(configs / "voc-15-5-eir.yaml"), "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    facts = json.loads(capfd.readouterr().out)
    assert len(facts["steps"]) == 2
    assert facts["next"] == f"eir train {configs / 'voc-15-5-eir.yaml'} --step 0"


def test_a_run_of_an_earlier_version_learns_its_classes_when_it_is_held(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(finished.parent / "elsewhere", tmp_path / "data")
    path = tmp_path / "run/manifest.yaml"
    tree = yaml.safe_load(path.read_text())
    del tree["classes"]
    path.write_text(yaml.safe_dump(tree))
    assert open_run(tmp_path / "run").directory.classes is None
    run = open_run(tmp_path / "run", [f"dataset.root={tmp_path / 'data'}"])
    with run.locked():
        pass
    assert open_run(tmp_path / "run").directory.classes == ("cat", "dog", "cow")


def test_other_classes_are_another_run(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    draw_folder(tmp_path / "data", "cat\ndog\nhorse\n")
    run = open_run(tmp_path / "run", [f"dataset.root={tmp_path / 'data'}"])
    before = (tmp_path / "run/manifest.yaml").read_bytes()
    with (
        pytest.raises(UserError, match="was made with the classes cat, dog, cow; the data set now has cat, dog, horse"),
        run.locked(),
    ):
        pass
    assert (tmp_path / "run/manifest.yaml").read_bytes() == before


def test_picked_classes_with_other_ids_are_another_run(tmp_path: Path) -> None:
    """Names alike, ids in the label files not: a line of classes.txt is gone."""
    draw_folder(tmp_path / "data", "ox\ncat\ndog\n")
    overrides = [f"dataset={{kind: folder, root: {tmp_path / 'data'}, classes: [dog, cat]}}", "protocol.schedule=1-1"]
    run = open_run(TINY, overrides, tmp_path / "run")
    with run.locked():
        pass
    assert yaml.safe_load((tmp_path / "run/manifest.yaml").read_text())["label_ids"] == [3, 2]
    (tmp_path / "data/classes.txt").write_text("cat\ndog\nlast\n")
    with (
        pytest.raises(UserError, match="made with the classes dog = 3, cat = 2; the data set now has dog = 2, cat = 1"),
        open_run(tmp_path / "run").locked(),
    ):
        pass


def test_what_is_no_image_array_is_refused(finished: Path) -> None:
    predictor = Predictor(open_run(finished), 2)
    for wrong in (Image.new("RGB", (4, 4)), "photo.jpg", np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))):
        with pytest.raises(ValueError, match=r"give an RGB image as a uint8 array \[H, W, 3\]"):
            predictor.predict(wrong)  # type: ignore[arg-type]


def test_a_file_is_no_run_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file/run"):
        with (
            pytest.raises(UserError, match=r"cannot be a run directory: .*; give another --run-dir"),
            open_run(TINY, [], path).locked(),
        ):
            pass


def test_a_damaged_record_is_said(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run/manifest.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"steps": {0: {"checkpoint": {"file": "x"}}}}))
    with pytest.raises(UserError, match=r"manifest\.yaml: steps: is no record of a run"):
        status(open_run(tmp_path / "run"))


def test_damaged_class_names_are_said(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run/manifest.yaml"
    for classes in (5, "ab", [1, 2]):
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"classes": classes}))
        with pytest.raises(UserError, match=r"manifest\.yaml: classes: must be the classes of the run's data set"):
            status(open_run(tmp_path / "run"))


def test_who_only_looks_at_a_recipe_takes_nothing_from_the_run_directory_it_would_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = open_run(TINY)
    with run.locked():
        pass
    assert Path("runs/tiny-seed0/manifest.yaml").is_file()
    other = open_run(TINY, ["dataset.groups=[2,2,2]"], look_only=True).checked()
    assert describe_step(other, 0).steps == 5


def test_a_manifest_without_a_record_is_a_recipe(finished: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load((finished / "manifest.yaml").read_text())
    (tmp_path / "run").mkdir()
    for keys in (("steps",), ("steps", "classes")):
        kept = {key: value for key, value in tree.items() if key not in keys}
        (tmp_path / "run/manifest.yaml").write_text(yaml.safe_dump(kept))
        assert open_run(tmp_path / "run").manifest == open_run(finished).manifest


def test_results_of_another_version_are_said(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    run = open_run(tmp_path / "run")
    path = run.directory.results(2)
    results: dict[str, Any] = json.loads(path.read_text())
    del results["images"]
    path.write_text(json.dumps(results))
    run.directory.record(2, "results", path)
    with pytest.raises(UserError, match=r"results\.json: holds no results that this eir reads .*; run eir evaluate with --again"):
        compare([run])
