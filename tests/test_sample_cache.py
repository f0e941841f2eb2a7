"""Samples decoded at the working size, and kept: the same samples from everywhere, decoded once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eircli.common.errors import UserError
from eircli.common.types import Sample
from eircli.config.datasets import Shapes
from eircli.config.section import Cache
from eircli.data.files import FileSplit
from eircli.data.resize import resize_short_side
from eircli.data.sample_cache import OnDisk, decoded
from eircli.data.shapes import shapes
from eircli.data.step_view import StepView

SIZE = (403, 601)


@pytest.fixture
def split(tmp_path: Path) -> FileSplit:
    """Two smooth JPEGs whose sides are divisible by nothing, labels of blocks."""
    images, labels = [], []
    for number in range(2):
        random = np.random.default_rng(number)
        image = Image.fromarray(random.integers(0, 256, (30, 40, 3)).astype(np.uint8))
        label = random.choice([0, 1, 2, 255], (9, 12)).astype(np.uint8)
        images.append(tmp_path / f"{number}.jpg")
        labels.append(tmp_path / f"{number}.png")
        image.resize(SIZE[::-1], Image.Resampling.BICUBIC).save(images[-1], quality=90)
        Image.fromarray(label).resize(SIZE[::-1], Image.Resampling.NEAREST).save(labels[-1])
    return FileSplit(["a", "b"], images, labels, 2)


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, tuple[int, int]]]:
    """Path and decoded size of every image file opened and decoded while the test runs."""
    seen: list[tuple[Path, tuple[int, int]]] = []
    load = Image.Image.convert

    def counted(image: Image.Image, mode: str) -> Image.Image:
        seen.append((Path(getattr(image, "filename", "")), image.size))
        return load(image, mode)

    monkeypatch.setattr("PIL.Image.Image.convert", counted)
    return seen


def same(one: Sample, other: Sample) -> bool:
    return np.array_equal(one.image, other.image) and np.array_equal(one.label, other.label)


@pytest.mark.parametrize(("short_side", "scale"), [(40, 4), (100, 2), (101, 1), (201, 1), (403, 1), (500, 1), (None, 1)])
def test_jpegs_are_decoded_at_no_less_than_twice_the_wanted_size(
    split: FileSplit, decodings: list[tuple[Path, tuple[int, int]]], short_side: int | None, scale: int
) -> None:
    found = split.load(0, short_side)
    assert decodings == [(split.images[0], tuple(-(-side // scale) for side in SIZE[::-1]))]
    own = split.load(0)
    plain = own if short_side is None else resize_short_side(own, short_side)
    np.testing.assert_array_equal(found.label, plain.label)
    difference = np.abs(found.image.astype(int) - plain.image)
    assert difference.shape == plain.image.shape
    if scale == 1:
        assert not difference.any()
    else:
        assert difference.mean() < 1
        assert difference[:, -1].mean() < 2


@pytest.mark.parametrize("short_side", [None, 50])
@pytest.mark.parametrize("cache", ["none", "ram", "disk"])
def test_every_step_gets_the_same_samples_from_every_cache(split: FileSplit, cache: Cache, short_side: int | None) -> None:
    tables = np.zeros((2, 256), np.uint8)
    tables[0, [1, 255]] = 1, 255
    tables[1, [2, 255]] = 2, 255
    for table in tables:
        view = StepView(split, np.array([1, 0]), table, short_side, cache)
        for _ in range(2):
            for index, position in enumerate((1, 0)):
                image, ids = split.load(position, short_side)
                assert same(view.load(index), Sample(image, table[ids]))


@pytest.mark.parametrize(("cache", "expected"), [("none", 4), ("ram", 2), ("disk", 1)])
def test_how_often_an_image_is_decoded_in_two_steps_of_two_epochs(
    split: FileSplit, decodings: list[tuple[Path, tuple[int, int]]], cache: Cache, expected: int
) -> None:
    for _ in range(2):
        view = StepView(split, np.array([0]), np.arange(256, dtype=np.uint8), 50, cache)
        for _ in range(2):
            view.load(0)
    assert len(decodings) == expected


@pytest.mark.parametrize("damage", ["empty", "cut in its header", "cut", "longer", "a byte changed"])
def test_a_damaged_file_of_the_cache_is_written_again(split: FileSplit, tmp_path: Path, damage: str) -> None:
    kept = OnDisk(split, 50, tmp_path / "kept")
    expected, path = kept.load(0), kept.path(0)
    whole = path.read_bytes()
    broken = bytearray(whole)
    broken[500] ^= 1
    path.write_bytes(
        {
            "empty": b"",
            "cut in its header": whole[:5],
            "cut": whole[:-1],
            "longer": whole + b"0",
            "a byte changed": bytes(broken),
        }[damage]
    )
    assert same(kept.load(0), expected)
    assert path.read_bytes() == whole


def test_what_the_cache_keeps_belongs_to_the_files_and_the_size(split: FileSplit, tmp_path: Path) -> None:
    kept = OnDisk(split, 50, tmp_path / "kept")
    kept.load(0)
    paths = {kept.path(0), kept.path(1), OnDisk(split, 60, kept.folder).path(0), OnDisk(split, None, kept.folder).path(0)}
    assert len(paths) == 4
    Image.fromarray(np.full(SIZE, 2, np.uint8)).save(split.labels[0])
    assert (kept.load(0).label == 2).all()
    split.images[0].unlink()
    with pytest.raises(UserError, match=r"0\.jpg: missing"):
        kept.load(0)


def test_several_may_fill_the_cache_at_a_time(split: FileSplit, tmp_path: Path) -> None:
    expected = split.load(0, 50)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: OnDisk(split, 50, tmp_path / "kept").load(0), range(32)))
    assert all(same(sample, expected) for sample in found)
    assert len([path for path in (tmp_path / "kept").rglob("*") if path.is_file()]) == 1


def test_what_comes_from_the_cache_may_be_written_to(split: FileSplit, tmp_path: Path) -> None:
    kept = OnDisk(split, 50, tmp_path / "kept")
    for _ in range(2):
        image, label = kept.load(0)
        image[:], label[:] = 0, 0
    assert kept.load(0).image.any()


def test_drawn_samples_are_resized_and_kept_too(tmp_path: Path) -> None:
    train = shapes(Shapes(kind="shapes", groups=(2,), train_images=(3,), seed=0)).train
    for position in range(3):
        expected = resize_short_side(train.load(position), 40)
        for cache in ("none", "ram", "disk", "disk"):
            assert same(decoded(train, 40, cache, tmp_path / "kept").load(position), expected)
