"""The formats that exemplars are stored in."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eircli.common.errors import UserError
from eircli.common.types import CANVAS, Box, Instance, StoredImage, UInt8Array
from eircli.config.recipe import load_recipe
from eircli.memory.bank import Bank, write_bank
from eircli.memory.codecs import OPTIONS, Encoding, decode_pixels, encode_pixels
from eircli.memory.encoded import encode
from eircli.run.run import Run, open_run
from eircli.stages.build_memory import build_memory
from eircli.stages.run_protocol import run_protocol
from eircli.stages.train import train

TINY = Path(__file__).parent / "tiny.yaml"
Image.init()
AVAILABLE: list[Encoding] = [encoding for encoding in OPTIONS if encoding.upper() in Image.SAVE]
LOSSY = [encoding for encoding in AVAILABLE if encoding != "png"]


def picture() -> UInt8Array:
    """Smooth in space, of all hues."""
    rows, columns = np.mgrid[:40, :52]
    return np.stack([60 + 3 * rows, 200 - 2 * columns, 128 + 60 * np.sin(rows / 9) * np.cos(columns / 11)], axis=2).astype(
        np.uint8
    )


def test_the_manifest_knows_the_formats_of_the_codecs() -> None:
    for encoding in OPTIONS:
        assert load_recipe(TINY, [f"memory.encoding={encoding}"]).memory.encoding == encoding
    with pytest.raises(UserError, match=r"memory\.encoding"):
        load_recipe(TINY, ["memory.encoding=tiff"])


@pytest.mark.parametrize("encoding", LOSSY)
def test_lossy_pixels_come_back_nearly_the_same(encoding: Encoding) -> None:
    found = decode_pixels(encode_pixels(picture(), encoding, 90))
    assert found.shape == (40, 52, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - picture()).mean() < 3


def test_png_pixels_come_back_as_they_were() -> None:
    np.testing.assert_array_equal(decode_pixels(encode_pixels(picture(), "png", 1)), picture())


@pytest.mark.parametrize("encoding", LOSSY)
def test_a_lower_quality_takes_fewer_bytes_and_is_farther_off(encoding: Encoding) -> None:
    noisy = np.clip(picture() + np.random.default_rng(0).normal(0, 12, (40, 52, 3)), 0, 255).astype(np.uint8)
    files = [encode_pixels(noisy, encoding, quality) for quality in (30, 60, 95)]
    errors = [np.abs(decode_pixels(file).astype(int) - noisy).mean() for file in files]
    assert len(files[0]) < len(files[1]) < len(files[2])
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("encoding", [encoding for encoding in LOSSY if encoding != "webp"])
def test_colour_is_not_subsampled(encoding: Encoding) -> None:
    """Columns of two colours of the same brightness keep their hue; at half the resolution they would mix."""
    stripes = np.empty((16, 16, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (180, 80, 90), (60, 130, 130)
    found = decode_pixels(encode_pixels(stripes, encoding, 95)).astype(int)
    assert np.abs(found - stripes).mean() < 10
    subsampled = io.BytesIO()
    Image.fromarray(stripes).save(subsampled, "JPEG", quality=95, subsampling="4:2:0")
    assert np.abs(decode_pixels(subsampled.getvalue()).astype(int) - stripes).mean() > 20, "which the stripes tell"


@pytest.mark.parametrize("encoding", AVAILABLE)
def test_a_bank_of_each_format(tmp_path: Path, encoding: Encoding) -> None:
    mask = np.zeros((40, 52), bool)
    mask[5:30, 4:40] = True
    blank = np.where(mask[..., None], picture(), CANVAS).astype(np.uint8)
    instance = Instance(blank, mask, 3, "one", Box(0, 0, 40, 52), (60, 70), 0)
    image = StoredImage(picture(), mask.astype(np.uint8), 1, "two", 0)
    write_bank(tmp_path / "b.h5", [encode(instance, encoding, 90), encode(image, encoding, 90)], {})
    bank = Bank(tmp_path / "b.h5")
    cut, whole = bank.load(0), bank.load_image(1)
    np.testing.assert_array_equal(cut.mask, mask)
    np.testing.assert_array_equal(whole.label, image.label)
    assert np.abs(cut.image[mask].astype(int) - picture()[mask]).mean() < 4
    assert np.abs(whole.image.astype(int) - picture()).mean() < 4


def tiny_run(folder: Path, *changes: str) -> Run:
    return open_run(TINY, changes, folder / "run").checked()


def built(folder: Path, *changes: str) -> Bank:
    run = tiny_run(folder, *changes)
    with run.locked():
        build_memory(run, 1, lambda _: None)
    return Bank(run.directory.bank(1))


@pytest.mark.parametrize("encoding", AVAILABLE)
def test_a_budget_in_bytes_is_kept_in_every_format(tmp_path: Path, encoding: Encoding) -> None:
    bank = built(tmp_path, f"memory.encoding={encoding}", "memory.quality=60", "memory.budget=4kB")
    assert 0 < bank.size <= 4000
    files = [bank.record(position).pixels for position in range(len(bank))]
    assert {Image.open(io.BytesIO(file)).format for file in files} == {encoding.upper()}


@pytest.mark.parametrize("encoding", sorted({"webp", "avif"} & set(AVAILABLE)))
def test_a_pillow_without_the_codec_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: Encoding) -> None:
    file = encode_pixels(picture(), encoding, 60)
    monkeypatch.delitem(Image.SAVE, encoding.upper())
    monkeypatch.delitem(Image.OPEN, encoding.upper())
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != encoding.upper()])
    missing = rf"^memory\.encoding: the installed Pillow has no codec for {encoding}; .*one of jpeg, png"
    run = tiny_run(tmp_path, f"memory.encoding={encoding}")
    with run.locked():
        for action in (run_protocol, lambda run, say: train(run, 0, say), lambda run, say: build_memory(run, 1, say)):
            with pytest.raises(UserError, match=missing):
                action(run, lambda _: None)
    assert not run.directory.checkpoint(0).exists(), "before the base step is trained"
    with pytest.raises(UserError, match=r"memory\.encoding: .* no codec for the pixels of this bank"):
        decode_pixels(file)


def test_a_method_without_exemplars_needs_no_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "SAVE", {"JPEG": Image.SAVE["JPEG"]})
    run = tiny_run(tmp_path, "memory.encoding=avif", "method={name: finetune}", "train.iterations=1", "train.base.iterations=1")
    with run.locked():
        assert len(run_protocol(run, lambda _: None)) > 1
