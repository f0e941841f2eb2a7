"""A data set read whole: counted as a slow reference counts it, and everything that is wrong or odd in it named."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eircli.common.errors import UserError
from eircli.config.recipe import resolve
from eircli.data.check.report import DataReport
from eircli.data.folder import folder
from eircli.data.sources import archives
from eircli.reports.data_check import check_data
from eircli.run.run import Run
from eircli.run.rundir import RunDir
from tests.test_cli import TINY, eir
from tests.test_data import SIZE, damage, label_of, open_folder, write_pair
from tests.test_prepare_data import Server, prepared, server, small  # noqa: F401

LABELS = {"training": [(1, 255), (2,), (1, 3), (2, 2)], "validation": [(3, 1), (2,)]}


def made(root: Path, labels: dict[str, list[tuple[int, ...]]] = LABELS, names: str = "cat dog cow") -> Path:
    seed = 0
    for split, rows in labels.items():
        for number, ids in enumerate(rows):
            name = f"{split[0]}{number}"
            seed += 1
            write_pair(root / f"images/{split}/{name}.jpg", root / f"annotations/{split}/{name}.png", label_of(*ids))
            noise = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
            Image.fromarray(noise).save(root / f"images/{split}/{name}.jpg")
    (root / "classes.txt").write_text("\n".join(names.split()) + "\n")
    return root


def check(root: Path, kind: str = "folder", schedule: str = "joint", **dataset: object) -> DataReport:
    recipe = {
        "name": "checked",
        "dataset": {"kind": kind, "root": str(root), **dataset},
        "protocol": {"schedule": schedule},
        "method": {"name": "finetune"},
        "train": {"iterations": 1},
        "runtime": {"workers": 0},
    }
    manifest = resolve(recipe, [], "test")
    return check_data(Run(RunDir(root / "run", manifest, "test"), recorded_classes=False))


def errors(report: DataReport) -> list[str]:
    return [finding.line for finding in report.of("error")]


def odd(report: DataReport) -> list[str]:
    return [finding.line for finding in report.of("oddity")]


def test_counts_are_those_of_a_slow_reference(tmp_path: Path) -> None:
    report = check(made(tmp_path), schedule="2-1")
    assert report.findings == []
    for part, split in ((report.train, "training"), (report.test, "validation")):
        pixels = Counter(int(v) for ids in LABELS[split] for v in label_of(*ids).flat)
        whole = sum(pixels.values())
        assert part.images == len(LABELS[split])
        assert part.smallest == part.largest == SIZE[::-1]
        assert part.background == pytest.approx(pixels[0] / whole)
        assert part.ignored == pytest.approx(pixels[255] / whole)
        for row in report.classes:
            images = sum(row.id in ids for ids in LABELS[split])
            assert (row.train_pixels if split == "training" else row.test_pixels) == pixels[row.id]
            assert (row.train_images if split == "training" else row.test_images) == images
    assert [(s.classes, s.train_images, s.test_images) for s in report.steps] == [(["cat", "dog"], 4, 2), (["cow"], 1, 2)]


def test_workers_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path)
    damage(tmp_path, "cut image")
    alone = check(tmp_path)
    monkeypatch.setattr("eircli.reports.data_check.MIN_IMAGES_FOR_WORKERS", 1)
    monkeypatch.setattr(Run, "workers", 2)
    assert check(tmp_path) == alone


@pytest.mark.parametrize("what", ["id", "rgb", "size", "cut label", "cut image", "no image"])
def test_what_a_run_would_refuse_is_an_error(tmp_path: Path, what: str) -> None:
    damage(made(tmp_path), what)
    split = folder(open_folder(tmp_path)).train
    with pytest.raises(UserError) as refused:
        _ = split.present(1), split.load(1)
    assert str(refused.value).partition(": ")[0] in " ".join(errors(check(tmp_path)))


def test_all_faults_are_listed_not_the_first_alone(tmp_path: Path) -> None:
    made(tmp_path)
    Image.fromarray(label_of(9, 7)).save(tmp_path / "annotations/training/t0.png")
    (tmp_path / "annotations/training/t1.png").unlink()
    (tmp_path / "images/training/t2.jpg").unlink()
    (tmp_path / "annotations/validation/v0.png").write_bytes(b"\x89PNG")
    grey = np.repeat(label_of(1)[..., None], 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "annotations/validation/v1.png")
    report = check(tmp_path)
    found = "\n".join(errors(report))
    for expected in (
        "t0.png: holds id 7, 9; ids are 0",
        "t1.png: missing, the label of t1.jpg",
        "t2.*: missing, the image of the label t2.png",
        "v0.png: truncated",
        "v1.png: is coded as RGB, not as a single channel of class ids; its channels are equal: keep one",
    ):
        assert expected in found
    assert (report.train.images, report.train.unreadable) == (2, 1)


def test_sixteen_bits(tmp_path: Path) -> None:
    made(tmp_path)
    deep = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE) * 100
    (tmp_path / "images/training/t0.jpg").unlink()
    Image.fromarray(deep).save(tmp_path / "images/training/t0.png")
    Image.fromarray(label_of(1).astype(np.uint16)).save(tmp_path / "annotations/training/t1.png")
    found = errors(check(tmp_path))
    assert len(found) == 2
    assert any("images/training/t0.png: has 16 or 32 bits per pixel" in line for line in found)
    assert any("annotations/training/t1.png: has 16 or 32 bits per pixel" in line for line in found)


def test_a_photo_that_exif_turns(tmp_path: Path) -> None:
    made(tmp_path)
    tag = Image.Exif()
    tag[0x0112] = 6
    for name in ("t0", "t1"):
        path = tmp_path / f"images/training/{name}.jpg"
        with Image.open(path) as file:
            file.save(path, exif=tag)
    Image.fromarray(np.ascontiguousarray(label_of(1).T)).save(tmp_path / "annotations/training/t0.png")
    report = check(tmp_path)
    (line,) = errors(report)
    assert "t0.png: is 12x16 pixels, t0.jpg is stored as 16x12 with an EXIF tag that turns it (orientation 6)" in line
    (line,) = odd(report)
    assert "t1.jpg: its EXIF tag asks to turn it" in line


@pytest.mark.parametrize(
    ("labels", "names", "severity", "message"),
    [
        (LABELS, "background cat dog", "error", "class 'background': is class 1: background is id 0"),
        (LABELS, "cat dog Unlabelled", "oddity", "class 'Unlabelled': is class 3"),
        (LABELS, "cat dog cow ox", "oddity", "labels: id 4 never occurs, all from 0 to 3 do: are all ids one too small"),
        (LABELS, "cat dog cow ox", "oddity", "class 'ox': (id 4) never occurs in the training and the test images"),
        (LABELS, "cat dog cow ox", "error", "step 3: has no training image of ox"),
        ({**LABELS, "validation": [(1,), ()]}, "cat dog cow", "oddity", "v1.jpg: holds no class, only background"),
        ({**LABELS, "validation": [(1,), ()]}, "cat dog cow", "oddity", "class 'dog': (id 2) never occurs in the test images"),
    ],
)
def test_oddities(tmp_path: Path, labels: dict[str, list[tuple[int, ...]]], names: str, severity: str, message: str) -> None:
    report = check(made(tmp_path, labels, names), schedule="1-1")
    lines = [finding.line for finding in report.findings if finding.severity == severity]
    assert any(message in line for line in lines), report.findings


def test_ids_one_too_large(tmp_path: Path) -> None:
    made(tmp_path)
    for path in tmp_path.glob("annotations/*/*.png"):
        values = np.array(Image.open(path))
        Image.fromarray(np.where(values == 255, 255, values + 1).astype(np.uint8)).save(path)
    report = check(tmp_path)
    assert "labels: id 0 never occurs and 4 does: are all ids one too large, background being 1 in the files?" in odd(report)
    assert any("holds id 4" in line for line in errors(report))


def test_test_images_among_the_training_images(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "images/validation/v0.jpg").write_bytes((tmp_path / "images/training/t3.jpg").read_bytes())
    for kind, ending in (("images", "jpg"), ("annotations", "png")):
        (tmp_path / f"{kind}/validation/v1.{ending}").rename(tmp_path / f"{kind}/validation/t0.{ending}")
    report = check(tmp_path)
    (line,) = errors(report)
    assert "v0.jpg: is the same picture as the training image" in line
    assert line.endswith("t3.jpg; take one out")
    assert any("validation/t0.jpg: has the name of a training image" in line for line in odd(report))


def test_some_classes_and_images_held_out(tmp_path: Path) -> None:
    made(tmp_path)
    report = check(tmp_path, hold_out=2, classes=["cow", "dog"])
    assert [row.name for row in report.classes] == ["cow", "dog"]
    assert (report.train.images, report.test.images) == (2, 2)
    assert [(row.train_images, row.test_images) for row in report.classes] == [(1, 0), (0, 2)]
    assert not any("holds no class" in line for line in odd(report))


def test_voc_counts_and_its_own_labels(small: Server, tmp_path: Path) -> None:  # noqa: F811
    prepared(tmp_path)
    report = check(tmp_path, "voc")
    assert errors(report) == []
    assert f"{tmp_path}: train_aug lists 5 images, the published list 10,582" in odd(report)
    assert f"{tmp_path}: val lists 1 images, the published list 1,449" in odd(report)
    with_own = check(tmp_path, "voc", labels="SegmentationClass")
    assert any("train_aug with the labels of SegmentationClass" in line for line in odd(with_own))
    assert any("SegmentationClass/s1.png: missing" in line for line in errors(with_own))
    assert archives.VOC.name == "VOC.tar"


def test_training_on_vocs_own_images_is_remarked(small: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    prepared(tmp_path)
    monkeypatch.setattr("eircli.data.voc.IMAGES", {"train": 2, "train_aug": 5, "val": 1})
    assert any("training on VOC's own 2 images" in line for line in odd(check(tmp_path, "voc", train_list="train")))
    assert not any("published" in line for line in odd(check(tmp_path, "voc")))


def test_ade20k_counts(tmp_path: Path) -> None:
    made(tmp_path)
    assert odd(check(tmp_path, "ade20k"))[:2] == [
        f"{tmp_path}: training has 4 images, the published data set 20,210",
        f"{tmp_path}: validation has 2 images, the published data set 2,000",
    ]


def test_shapes_have_nothing_wrong(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert eir("check-data", TINY, "--json", monkeypatch=monkeypatch) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["train"]["images"] == 48
    assert [finding for finding in report["findings"] if finding["severity"] == "error"] == []


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[[str], Path]:
    def write(schedule: str) -> Path:
        path = tmp_path / "own.yaml"
        path.write_text(
            f"dataset: {{kind: folder, root: {tmp_path}}}\nprotocol: {{schedule: '{schedule}'}}\nmethod: {{name: finetune}}\n"
        )
        return path

    return write


def test_the_command(
    tmp_path: Path, recipe: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path)
    assert eir("check-data", str(recipe("2-1")), monkeypatch=monkeypatch) == 0
    out = capfd.readouterr().out
    assert "training: 4 images, 16x12 pixels; background" in out
    assert out.splitlines()[-1] == "errors: 0, oddities: 0"
    damage(tmp_path, "id")
    assert eir("check-data", str(recipe("2-1")), monkeypatch=monkeypatch) == 2
    lines = capfd.readouterr().out.splitlines()
    assert lines[-2].startswith("error: ")
    assert "t1.png: holds id 9" in lines[-2]
    assert lines[-1] == "errors: 1, oddities: 0"
    assert eir("check-data", str(recipe("2-2-9")), monkeypatch=monkeypatch) == 2
    assert "eir: protocol.schedule" in capfd.readouterr().err
