"""Foveated instances: what is kept, how it is put together again, and as which samples."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eircli.common.errors import UserError
from eircli.common.types import CANVAS, IGNORE, Box, FoveatedInstance, Sample, UInt8Array
from eircli.memory.bank import write_bank
from eircli.memory.decoded import decode
from eircli.memory.encoded import INDEX, SURROUNDINGS, decode_foveated, encode
from eircli.memory.foveated import FoveatedBank, FoveatedSamples, object_alone, picture_of
from eircli.memory.harvest import Candidate, Origin, cut_out, cut_out_foveated, widened
from eircli.run.run import Run, open_run
from eircli.stages.build_memory import build_memory

TINY = Path(__file__).parent / "tiny.yaml"
HEIGHT, WIDTH = 23, 30
OBJECT = Box(6, 10, 14, 18)
"""Where the object is; a ring of a quarter is two pixels wide."""


def scene(seed: int = 0) -> Sample:
    """An object of class 1 in noise, and an ignored pixel in its ring."""
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[6:14, 12:15] = label[8:11, 10:18] = 1
    label[5, 9] = IGNORE
    image = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    return Sample(image, label)


def foveated(sample: Sample, ring: float = 0.25, shrink: int = 4) -> FoveatedInstance:
    return cut_out_foveated(sample, Candidate(1, 0, 1, 39), Origin(7, "bild ä", 2), ring, shrink)


def slow_thumbnail(image: UInt8Array, shrink: int) -> list[list[list[float]]]:
    """The mean colour of every block of the image; blocks at the right and at the bottom may be smaller."""
    return [
        [
            image[top : top + shrink, left : left + shrink].reshape(-1, 3).astype(float).mean(axis=0).tolist()
            for left in range(0, image.shape[1], shrink)
        ]
        for top in range(0, image.shape[0], shrink)
    ]


def slow_enlarged(thumbnail: UInt8Array, shrink: int, row: int, column: int) -> list[float]:
    """A pixel between the centres of the thumbnail's pixels, linear in both directions, the nearest beyond the outermost."""
    rows, columns = thumbnail.shape[:2]
    y, x = ((at + 0.5) / shrink - 0.5 for at in (row, column))
    weights = []
    for r in range(rows):
        for c in range(columns):
            near_y = max(0.0, 1 - abs(min(max(y, 0), rows - 1) - r))
            near_x = max(0.0, 1 - abs(min(max(x, 0), columns - 1) - c))
            weights.append((near_y * near_x, thumbnail[r, c].astype(float)))
    return [float(sum(weight * colour[k] for weight, colour in weights)) for k in range(3)]


def test_kept_is_the_box_with_its_ring_and_a_thumbnail() -> None:
    sample = scene()
    kept = foveated(sample)
    assert kept.box == OBJECT
    assert kept.view == Box(4, 8, 16, 20)
    np.testing.assert_array_equal(kept.image, sample.image[4:16, 8:20])
    np.testing.assert_array_equal(kept.mask, sample.label[6:14, 10:18] == 1)
    assert kept.thumbnail.shape == (6, 8, 3)
    np.testing.assert_allclose(kept.thumbnail, slow_thumbnail(sample.image, 4), atol=1)
    assert (kept.area, kept.class_id, kept.source, kept.source_size, kept.step) == (39, 7, "bild ä", (HEIGHT, WIDTH), 2)


def test_a_pixel_far_away_changes_nothing_but_the_thumbnail() -> None:
    sample = scene()
    other = Sample(sample.image.copy(), sample.label)
    other.image[21, 29] = 255 - other.image[21, 29]
    before, after = foveated(sample), foveated(other)
    np.testing.assert_array_equal(before.image, after.image)
    assert np.argwhere((before.thumbnail != after.thumbnail).any(axis=2)).tolist() == [[5, 7]]
    assert encode(before, "png", 95).pixels == encode(after, "png", 95).pixels


@given(
    top=st.integers(0, 20),
    left=st.integers(0, 20),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    ring=st.sampled_from([0, 0.25, 1, 9]),
)
def test_a_ring_goes_around_the_box_within_the_image(top: int, left: int, height: int, width: int, ring: float) -> None:
    view = widened(Box(top, left, top + height, left + width), ring, (29, 30))
    inside = [
        (row, column)
        for row in range(29)
        for column in range(30)
        if max(top - row, row - top - height + 1) <= round(ring * height)
        and max(left - column, column - left - width + 1) <= round(ring * width)
    ]
    assert view == Box(*inside[0], inside[-1][0] + 1, inside[-1][1] + 1)


@pytest.mark.parametrize("shrink", [1, 3, 4, 30])
def test_a_picture_is_the_enlarged_thumbnail_with_the_view_at_its_place(shrink: int) -> None:
    sample = scene()
    kept = decode_foveated(encode(foveated(sample, shrink=shrink), "png", 95))
    picture = picture_of(kept)
    assert picture.shape == sample.image.shape
    for row, column in np.ndindex(HEIGHT, WIDTH):
        if 4 <= row < 16 and 8 <= column < 20:
            assert picture[row, column].tolist() == sample.image[row, column].tolist()
        else:
            np.testing.assert_allclose(picture[row, column], slow_enlarged(kept.thumbnail, shrink, row, column), atol=1.01)


@pytest.fixture
def bank(tmp_path: Path) -> FoveatedBank:
    """Three exemplars, the last of another class."""
    kept = [foveated(scene(seed)) for seed in range(3)]
    records = [encode(one, "png", 95)._replace(class_id=class_id) for one, class_id in zip(kept, (7, 7, 3), strict=True)]
    write_bank(tmp_path / "bank.h5", records, {"step": 1})
    return FoveatedBank(tmp_path / "bank.h5")


def test_a_bank_gives_back_what_it_was_given(bank: FoveatedBank) -> None:
    for seed in range(3):
        found, given_ = bank.load_foveated(seed), foveated(scene(seed))
        for part in ("image", "thumbnail", "mask"):
            np.testing.assert_array_equal(getattr(found, part), getattr(given_, part))
        for fact in ("view", "shrink", "source", "box", "source_size", "step"):
            assert getattr(found, fact) == getattr(given_, fact)
    assert [bank.load_foveated(position).class_id for position in range(3)] == [7, 7, 3]


def test_a_record_costs_its_pixels_mask_and_thumbnail(bank: FoveatedBank) -> None:
    record = bank.record(0)
    mask_length = int(np.frombuffer(record.annotation, SURROUNDINGS, count=1)["mask_length"][0])
    thumbnail = encode(foveated(scene()), "png", 95).annotation[SURROUNDINGS.itemsize + mask_length :]
    parts = [len(record.pixels), SURROUNDINGS.itemsize, mask_length, len(thumbnail), len("bild ä".encode()), INDEX.itemsize]
    assert record.size == sum(parts)
    assert bank.size == sum(bank.record(position).size for position in range(3))


def test_a_sample_is_labelled_inside_its_mask_alone(bank: FoveatedBank) -> None:
    table = np.zeros(256, np.uint8)
    table[[7, 3]] = [1, 2]
    samples = FoveatedSamples(bank, table)
    assert len(samples) == 3
    for position, channel in enumerate((1, 1, 2)):
        image, label = samples.load(position)
        np.testing.assert_array_equal(label, np.where(scene().label == 1, channel, 0))
        np.testing.assert_array_equal(image[4:16, 8:20], scene(position).image[4:16, 8:20])


def test_the_object_alone_is_the_instance(bank: FoveatedBank) -> None:
    expected = cut_out(scene(), Candidate(1, 0, 1, 39), Origin(7, "bild ä", 2), CANVAS)
    for found in (object_alone(foveated(scene())), bank.load(0)):
        np.testing.assert_array_equal(found.image, expected.image)
        np.testing.assert_array_equal(found.mask, expected.mask)
        assert (found.box, found.class_id, found.source_size) == (expected.box, expected.class_id, expected.source_size)


def test_what_is_pasted_is_the_object(bank: FoveatedBank) -> None:
    table = np.zeros(256, np.uint8)
    table[[7, 3]] = [2, 1]
    decoded = decode(bank, table, 2, torch.device("cpu"))
    assert decoded.instance_count.tolist() == [0, 1, 2]
    pixels = decoded.pixels.view(3, 8, 8, 4)
    for place, seed in enumerate((2, 0, 1)):
        mask = scene(seed).label[OBJECT.window] == 1
        np.testing.assert_array_equal(pixels[place, ..., 3].numpy().astype(bool), mask)
        np.testing.assert_array_equal(pixels[place].numpy()[mask][:, :3], scene(seed).image[OBJECT.window][mask])


def test_a_damaged_thumbnail_is_found_and_named(bank: FoveatedBank) -> None:
    content = bytearray(bank.path.read_bytes())
    content[content.index(bank.record(1).annotation) + len(bank.record(1).annotation) - 30] ^= 1
    bank.path.write_bytes(content)
    again = FoveatedBank(bank.path)
    again.load_foveated(0)
    with pytest.raises(UserError, match=r"bank\.h5: damaged \(the checksum of exemplar 1 differs\)"):
        again.load_foveated(1)


def built(folder: Path, *changes: str) -> tuple[Run, list[FoveatedBank]]:
    """The memories of steps 1 and 2 of a tiny run."""
    run = open_run(
        TINY, ["method={name: eir, slot: 16, memory: foveated, surroundings: ignore}", *changes], folder / "run"
    ).checked()
    with run.locked():
        build_memory(run, 2, lambda _: None)
    return run, [FoveatedBank(run.directory.bank(step)) for step in (1, 2)]


def test_a_memory_is_carried_on_without_being_coded_again(tmp_path: Path) -> None:
    _, (first, second) = built(tmp_path, "memory.budget=6", "memory.rule=largest")
    old = {first.record(position) for position in range(len(first))}
    kept = [second.record(position) for position in range(len(second)) if second.record(position).class_id < 3]
    assert kept
    assert set(kept) < old
    assert second.facts["kind"] == "foveated"


def test_memory_settings_say_what_is_kept(tmp_path: Path) -> None:
    run, (bank, _) = built(tmp_path, "memory.ring=0.5", "memory.thumbnail=3", "memory.encoding=png")
    view = run.training_view(0)
    for position in range(len(bank)):
        kept = bank.load_foveated(position)
        image = view.load(view.ids.index(kept.source)).image
        assert kept.view == widened(kept.box, 0.5, (32, 32))
        np.testing.assert_array_equal(kept.image, image[kept.view.window])
        np.testing.assert_allclose(kept.thumbnail, slow_thumbnail(image, 3), atol=1)


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_a_budget_in_bytes_counts_everything(tmp_path: Path, encoding: str) -> None:
    run, banks = built(tmp_path, "memory.budget=9kB", f"memory.encoding={encoding}")
    for step, bank in zip((1, 2), banks, strict=True):
        sizes = [len(record.content) + INDEX.itemsize for record in map(bank.record, range(len(bank)))]
        assert sum(sizes) == bank.size <= 9000
        assert bank.size > 9000 - 2 * max(sizes), "spent"
        assert run.directory.bank(step).stat().st_size >= bank.size
