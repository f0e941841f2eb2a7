"""`eir predict` and the package from Python: images of one's own, whole and in windows."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import eircli
from eircli.cli.app import main
from eircli.common.errors import UserError
from eircli.common.types import UInt8Array
from eircli.data.photos import find_photos, read_photo
from eircli.reports.colours import palette
from eircli.reports.overlay import overlay
from eircli.run.predictor import Predictor
from eircli.run.windows import MARGIN, Window, spans, windows
from eircli.stages.run_protocol import run_protocol

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on shapes whose class ids are learned in another order than they are numbered."""
    folder = tmp_path_factory.mktemp("predict") / "run"
    run = eircli.open_run(TINY, ["protocol.schedule=[[3, 1], [2], [4]]"], folder)
    with run.locked():
        run_protocol(run, lambda line: None)
    return folder


def scene(size: tuple[int, int], seed: int = 0) -> UInt8Array:
    """A coarse random picture, height and width."""
    coarse = np.random.default_rng(seed).integers(0, 256, (size[0] // 8 + 1, size[1] // 8 + 1, 3)).astype(np.uint8)
    return np.array(Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC))


@settings(max_examples=300, deadline=None)
@given(length=st.integers(1, 400), side=st.integers(1, 120))
def test_what_windows_keep_covers_the_length_once(length: int, side: int) -> None:
    found = spans(length, side)
    kept = [place for span in found for place in range(span.first, span.last)]
    assert kept == list(range(length))
    for number, span in enumerate(found):
        assert 0 <= span.begin <= span.first < span.last <= span.end <= length
        assert span.end - span.begin == min(side, length)
        if number:
            assert span.first - span.begin >= side // MARGIN, "the rim towards a neighbour is not kept"
        if number < len(found) - 1:
            assert span.end - span.last >= side // MARGIN


@settings(max_examples=100, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), side=st.integers(4, 40), factor=st.floats(0.4, 3))
def test_windows_cover_an_image_of_another_size_once(height: int, width: int, side: int, factor: float) -> None:
    large = (max(1, round(factor * height)), max(1, round(factor * width)))
    counts = np.zeros(large, int)
    for window in windows((height, width), side):
        scaled: Window = window.scaled((height, width), large)
        counts[scaled.target] += 1
        inner = tuple(part.stop - part.start for part in scaled.inner)
        assert inner == tuple(part.stop - part.start for part in scaled.target)
        assert all(part.stop <= length for part, length in zip(scaled.inner, scaled.size, strict=True))
    assert (counts == 1).all()


def test_windows_predict_what_the_network_makes_of_each(finished: Path) -> None:
    """Against each window passed through the model alone, and what is kept of it pasted by hand."""
    image = scene((50, 70))
    predictor = eircli.load(finished, window=32)
    expected, confidence = np.zeros((50, 70), np.uint8), np.zeros((5, 50, 70))
    for row in spans(50, 32):
        for column in spans(70, 32):
            cut = image[row.begin : row.end, column.begin : column.end]
            with torch.no_grad():
                logits = predictor.model(torch.from_numpy(cut.copy()).permute(2, 0, 1)[None])
                raised = torch.nn.functional.interpolate(logits, (32, 32), mode="bilinear")[0].double().numpy()
            for y in range(row.first, row.last):
                for x in range(column.first, column.last):
                    z = raised[:, y - row.begin, x - column.begin]
                    confidence[:, y, x] = 1 / (1 + np.exp(-z))
                    expected[y, x] = 1 + z[1:].argmax() if z[1:].max() > 0 else 0
    np.testing.assert_array_equal(predictor.predict(image), expected)
    np.testing.assert_allclose(predictor.probabilities(image).astype(float), confidence, atol=2e-3)


def test_large_images_go_through_in_windows(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = scene((60, 60))
    windowed, whole = (eircli.load(finished, window=size) for size in (24, 0))
    assert (windowed.predict(image) != whole.predict(image)).any(), "the two differ"
    monkeypatch.setattr("eircli.run.predictor.WINDOW", 24)
    monkeypatch.setattr("eircli.run.predictor.LARGEST", 60 * 60)
    np.testing.assert_array_equal(eircli.load(finished).predict(image), whole.predict(image))
    monkeypatch.setattr("eircli.run.predictor.LARGEST", 60 * 60 - 1)
    np.testing.assert_array_equal(eircli.load(finished).predict(image), windowed.predict(image))


def test_images_of_one_size_go_together(finished: Path) -> None:
    predictor = eircli.load(finished)
    images = [scene((40, 33), seed) for seed in range(3)]
    for found, image in zip(predictor.predict_batch(images), images, strict=True):
        np.testing.assert_array_equal(found, predictor.predict(image))
    with pytest.raises(ValueError, match="images of one size"):
        predictor.predict_batch([scene((40, 33)), scene((33, 40))])
    with pytest.raises(ValueError, match="uint8 array"):
        predictor.predict(np.zeros((4, 4), np.uint8))


def test_images_are_found_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.jpg", "a/b/1.jpg", "a/b/1.png", "a/b/notes.txt", "c/2.JPG"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(name) if not name.endswith("txt") else Path(name).write_text("no image")
    assert [photo.name for photo in find_photos(["a", "c/2.JPG", "a/1.jpg"])] == ["1", "b/1.jpg", "b/1.png", "2"]
    assert [photo.name for photo in find_photos(["a/1.jpg", "a/b/1.jpg", "c/2.JPG"])] == ["a/1.jpg", "b/1.jpg", "2"]
    with pytest.raises(UserError, match=r"none: no such image, folder or pattern"):
        find_photos(["none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: holds no image"):
        find_photos(["empty"])


def test_images_are_read_upright_and_in_eight_bits(tmp_path: Path) -> None:
    image = scene((20, 30))
    exif = Image.Exif()
    exif[274] = 6  # held so that the picture has to be turned by 90 degrees, clockwise
    Image.fromarray(np.rot90(image).copy()).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_photo(tmp_path / "turned.png"), image)
    Image.fromarray(image).convert("RGBA").save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_photo(tmp_path / "rgba.png"), image)
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(UserError, match="more than 8 bits"):
        read_photo(tmp_path / "deep.png")
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8no")
    with pytest.raises(UserError, match=r"bad\.jpg: cannot be read"):
        read_photo(tmp_path / "bad.jpg")


def test_the_colours_of_the_first_classes_are_far_apart() -> None:
    colours = palette().astype(int)
    assert tuple(colours[0]) == (0, 0, 0)
    assert tuple(colours[255]) == (255, 255, 255)
    assert len({tuple(colour) for colour in colours.tolist()}) == 256
    distances = [np.abs(a - b).sum() for n, a in enumerate(colours[:22]) for b in colours[:n]]
    assert min(distances) > 60


def test_an_overlay_has_its_classes_colours_and_a_legend_below() -> None:
    image, classes = np.full((50, 80, 3), 100, np.uint8), np.zeros((50, 80), np.uint8)
    classes[10:20, 10:30] = 2
    drawn = np.array(overlay(image, classes, ["background", "cat", "dog"]))
    np.testing.assert_array_equal(drawn[0, 0], [100, 100, 100])
    np.testing.assert_allclose(drawn[15, 15], (palette()[2].astype(float) + 100) / 2, atol=1)
    assert drawn.shape[0] > 50
    assert (drawn[50:] == palette()[2]).all(axis=2).any(), "the colour of dog"
    assert not (drawn[50:] == palette()[1]).all(axis=2).any(), "no cat"


def test_the_command(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def eir(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["eir", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    images = {name: scene(size, n) for n, (name, size) in enumerate({"x": (40, 50), "y": (40, 50), "z": (33, 32)}.items())}
    for name, image in images.items():
        Image.fromarray(image).save(pictures / f"{name}.png")
    (pictures / "w.jpg").write_bytes(b"nothing")
    out = tmp_path / "out"
    command = ["predict", str(finished), str(pictures), "--out", str(out), "--probabilities", "--json"]
    assert eir(*command) == 0
    printed = capfd.readouterr()
    facts = json.loads(printed.out)
    assert facts["step"] == 2
    assert list(facts["unreadable"]) == [str(pictures / "w.jpg")]
    assert "3 of 4 images predicted" in printed.err
    predictor = eircli.load(finished)
    assert predictor.class_ids.tolist() == [0, 3, 1, 2, 4]
    for found in facts["images"]:
        image = images[Path(found["image"]).stem]
        expected = np.array([0, 3, 1, 2, 4])[predictor.predict(image)]
        with Image.open(found["class_ids"]) as file:
            assert file.mode == "P"
            np.testing.assert_array_equal(np.array(file), expected)
        counted = {area["id"]: area["pixels"] for area in found["classes"]}
        assert counted == {int(i): int((expected == i).sum()) for i in np.unique(expected)}
        assert sum(area["share"] for area in found["classes"]) == pytest.approx(1)
        saved = np.load(found["probabilities"])
        assert saved["probabilities"].shape == (5, *image.shape[:2])
        assert saved["names"].tolist() == predictor.names
        with Image.open(found["overlay"]) as file:
            assert file.width >= image.shape[1]
    assert eir("predict", str(finished), str(pictures / "x.png"), "--out", str(out / "0"), "--step", "0", "--no-overlays") == 0
    assert [path.name for path in (out / "0").iterdir()] == ["x.png"]
    with Image.open(out / "0/x.png") as file:
        assert set(np.unique(np.array(file)).tolist()) <= {0, 3, 1}
    capfd.readouterr()
    for arguments, message in (
        (["predict", str(TINY), str(pictures), "--out", str(out)], "give a run directory"),
        (["predict", str(finished), str(pictures / "w.jpg"), "--out", str(out)], "none of the images could be read"),
        (["predict", str(finished), str(pictures), "--out", str(out), "--step", "7"], "step 7 has no checkpoint"),
    ):
        assert eir(*arguments) == 2
        assert message in capfd.readouterr().err


def test_a_run_is_worked_on_from_python(tmp_path: Path) -> None:
    run = eircli.open_run(TINY, ["train.iterations=2", "train.base.iterations=3"], tmp_path / "run")
    with pytest.raises(UserError, match="no step is trained yet"):
        eircli.load(run)
    said: list[str] = []
    eircli.train(run, 0, say=said.append)
    assert any("batch" in line for line in said)
    found = eircli.evaluate(run, 0)
    assert found.step == 0
    assert eircli.results(tmp_path / "run", 0) == found
    eircli.build_memory(run, 1)
    assert (tmp_path / "run/step-1/bank.h5").exists()
    assert [step.step for step in eircli.run_protocol(run)] == [0, 1, 2]
    predictor: Predictor = eircli.load(tmp_path / "run")
    assert len(predictor.names) == 5
    assert set(dir(eircli)) >= {"__version__"}
    with pytest.raises(AttributeError):
        _ = eircli.nothing
