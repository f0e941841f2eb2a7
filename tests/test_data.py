"""Data sets in files: read right, and refused by name where they are faulty."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import CenterCrop, Resize, v2
from torchvision.transforms import InterpolationMode as Mode

from eircli.common.errors import UserError
from eircli.common.types import IGNORE, Sample, UInt8Array
from eircli.config.datasets import Ade20k, Folder, Voc
from eircli.config.manifest import Data
from eircli.data.ade20k import ade20k
from eircli.data.class_index import read_class_index
from eircli.data.folder import folder
from eircli.data.open import open_dataset
from eircli.data.resize import resize_short_side, size_at
from eircli.data.step_view import StepView
from eircli.data.training_set import BatchStream, TrainingSet
from eircli.data.transforms import TrainTransform, paper_crop
from eircli.data.voc import CLASSES, voc

SIZE = (12, 16)


def write_pair(image: Path, label: Path, values: UInt8Array) -> None:
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(int(values.sum())).integers(0, 256, (*values.shape, 3)).astype(np.uint8)
    Image.fromarray(noise).save(image, quality=95)
    Image.fromarray(values).save(label)


def label_of(*ids: int) -> UInt8Array:
    label = np.zeros(SIZE, np.uint8)
    for row, class_id in enumerate(ids):
        label[row] = class_id
    return label


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, labels in {"training": [(1, 255), (2,), (1, 3)], "validation": [(3,), ()]}.items():
        for number, ids in enumerate(labels):
            name = f"{split[0]}{number}"
            write_pair(tmp_path / f"images/{split}/{name}.jpg", tmp_path / f"annotations/{split}/{name}.png", label_of(*ids))
    (tmp_path / "classes.txt").write_text("cat\ndog\ncow\n")
    return tmp_path


def open_folder(root: Path, classes: tuple[str, ...] | None = None) -> Folder:
    return Folder(kind="folder", root=root, classes=classes)


def test_folder(root: Path) -> None:
    data = folder(open_folder(root))
    assert data.classes == ("cat", "dog", "cow")
    assert data.train.ids == ["t0", "t1", "t2"]
    image, label = data.train.load(2)
    assert image.shape == (*SIZE, 3)
    np.testing.assert_array_equal(label, label_of(1, 3))
    assert read_class_index(data.train, 3, workers=0).tolist() == [
        [True, True, False, False],
        [True, False, True, False],
        [True, True, False, True],
    ]


def test_some_of_the_classes_by_name(root: Path) -> None:
    data = folder(open_folder(root, ("cow", "cat")))
    assert data.classes == ("cow", "cat")
    np.testing.assert_array_equal(data.train.load_label(2), label_of(2, 1))
    np.testing.assert_array_equal(data.train.load_label(0), label_of(2, 255))
    assert not data.train.load_label(1).any()
    with pytest.raises(UserError, match=r"'cwo' is not in .*classes\.txt; did you mean cow\?"):
        folder(open_folder(root, ("cwo",)))


def test_class_index_is_cached_until_a_file_changes(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = read_class_index(folder(open_folder(root)).train, 3, 0, cache)
    (stored,) = cache.iterdir()
    with stored.open("wb") as file:
        np.savez(file, index=~first)
    np.testing.assert_array_equal(read_class_index(folder(open_folder(root)).train, 3, 0, cache), ~first)
    stored.write_bytes(b"rubbish")
    np.testing.assert_array_equal(read_class_index(folder(open_folder(root)).train, 3, 0, cache), first)
    Image.fromarray(label_of(3, 3)).save(root / "annotations/training/t1.png")
    changed = read_class_index(folder(open_folder(root)).train, 3, 0, cache)
    assert changed[1].tolist() == [True, False, False, True]


def test_worker_processes_read_the_same(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("eircli.data.class_index.MIN_IMAGES_FOR_WORKERS", 1)
    split = folder(open_folder(root)).train
    np.testing.assert_array_equal(read_class_index(split, 3, 2, tmp_path / "a"), read_class_index(split, 3, 0, tmp_path / "b"))
    Image.fromarray(label_of(9)).save(root / "annotations/training/t1.png")
    with pytest.raises(UserError, match=r"t1\.png: holds id 9"):
        read_class_index(folder(open_folder(root)).train, 3, 2, tmp_path / "c")


def damage(root: Path, what: str) -> None:
    label, image = root / "annotations/training/t1.png", root / "images/training/t1.jpg"
    match what:
        case "id":
            Image.fromarray(label_of(9)).save(label)
        case "rgb":
            Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(label)
        case "size":
            Image.fromarray(np.zeros((5, 7), np.uint8)).save(label)
        case "cut label":
            label.write_bytes(label.read_bytes()[:60])
        case "cut image":
            image.write_bytes(image.read_bytes()[:-40])
        case "no image":
            image.write_bytes(b"hello")
        case "missing label":
            label.unlink()
        case "missing image":
            image.unlink()
        case "twice":
            image.with_suffix(".png").write_bytes(image.read_bytes())
        case "empty":
            (root / "classes.txt").write_text("")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("id", r"t1\.png: holds id 9; ids are 0 \(background\), 1\.\.3 and 255"),
        ("rgb", r"t1\.png: labels must be a single channel .* RGB"),
        ("size", r"t1\.png: is 7x5 pixels, its image t1\.jpg is 16x12"),
        ("cut label", r"t1\.png: truncated"),
        ("cut image", r"t1\.jpg: truncated"),
        ("no image", r"t1\.jpg: cannot be read"),
        ("missing label", r"t1\.png: missing, the label of t1\.jpg"),
        ("missing image", r"t1\.\*: missing, the image of the label t1\.png"),
        ("twice", r"t1\.jpg: has the same name as t1\.png"),
        ("empty", r"classes\.txt: needs 1 to 254"),
    ],
)
def test_faulty_files_are_named_in_one_line(root: Path, what: str, message: str) -> None:
    damage(root, what)
    with pytest.raises(UserError, match=message) as error:
        read_class_index(folder(open_folder(root)).train, 3, 0)
    assert "\n" not in str(error.value)


def test_palette_masks_are_ids(root: Path) -> None:
    mask = Image.frombytes("P", SIZE[::-1], label_of(2, 255).tobytes())
    mask.putpalette([i // 3 for i in range(768)])
    mask.save(root / "annotations/training/t1.png")
    np.testing.assert_array_equal(folder(open_folder(root)).train.load_label(1), label_of(2, 255))


@pytest.mark.parametrize("paths", [False, True])
def test_voc_reads_both_formats_of_list(tmp_path: Path, paths: bool) -> None:
    names = ["2007_000032", "2007_000039"]
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for name in names:
        write_pair(tmp_path / f"JPEGImages/{name}.jpg", tmp_path / f"SegmentationClassAug/{name}.png", label_of(20, 255))
        write_pair(tmp_path / f"JPEGImages/{name}.jpg", tmp_path / f"SegmentationClass/{name}.png", label_of(3))
    lines = [f"/JPEGImages/{n}.jpg /SegmentationClassAug/{n}.png" if paths else n for n in names]
    (lists / "train_aug.txt").write_text("\n".join(lines) + "\n")
    (lists / "val.txt").write_text(names[0])
    data = voc(Voc(kind="voc", root=tmp_path))
    assert data.train.ids == names
    assert data.train.present(1) == [0, 20, 255]
    assert data.val.present(0) == [0, 3]
    assert voc(Voc(kind="voc", root=tmp_path, train_list="val")).train.present(0) == [0, 3]


def test_voc_on_real_photographs(real_images: Path) -> None:
    data = voc(Voc(kind="voc", root=real_images / "voc-mini", train_list="train"))
    found = {data.train.ids[i]: {CLASSES[c - 1] for c in data.train.present(i) if 0 < c < 255} for i in range(3)}
    listed = {line.split()[0]: line.split()[1:] for line in (real_images / "voc-index/train_aug.txt").read_text().splitlines()}
    listed |= {line.split()[0]: line.split()[1:] for line in (real_images / "voc-index/val.txt").read_text().splitlines()}
    assert found == {name: {CLASSES[int(c) - 1] for c in listed[name]} for name in found}


def test_voc_from_a_class_index_needs_no_images(real_images: Path) -> None:
    data = voc(Voc(kind="voc", root=Path("nowhere"), class_index=real_images / "voc-index"))
    assert (len(data.train), len(data.val)) == (10582, 1449)


def test_ade20k(root: Path) -> None:
    data = ade20k(Ade20k(kind="ade20k", root=root))
    assert len(data.classes) == 150
    assert data.classes[149] == "flag"
    assert data.val.present(0) == [0, 3]
    with pytest.raises(UserError, match=r"dataset\.root: .*nowhere is no folder"):
        ade20k(Ade20k(kind="ade20k", root=root / "nowhere"))


def test_step_view_shows_only_its_table(root: Path) -> None:
    table = np.zeros(256, np.uint8)
    table[[3, 255]] = [7, 255]
    view = StepView(folder(open_folder(root)).train, np.array([0, 2]), table, short_side=6, cache="ram")
    assert view.ids == ["t0", "t2"]
    image, label = view.load(1)
    assert image.shape == (6, 8, 3)
    assert set(np.unique(label)) <= {0, 7}
    assert view.load(1).image is image
    np.testing.assert_array_equal(view.load_own_size(1).label, label_of(0, 7))


def test_paper_crop_is_square_and_centred() -> None:
    label = np.arange(40, dtype=np.uint8)[None].repeat(20, 0)
    sample = Sample(label[..., None].repeat(3, 2), label)
    cropped = paper_crop(sample, 10)
    assert cropped.label.shape == (10, 10)
    half = resize_short_side(sample, 10).label
    np.testing.assert_array_equal(cropped.label, half[:, 5:15])


@pytest.mark.parametrize("side", [96, 120, 512, 513])
def test_short_sides_are_resized_to_torchvisions_sizes(side: int) -> None:
    drawn = np.random.default_rng(side).integers(60, 700, (150, 2)).tolist()
    for width, height in [(500, 375), (375, 500), (320, 239), (side, side), *drawn]:
        theirs = Resize(side)(Image.new("L", (width, height))).size
        assert size_at((width, height), side) == theirs, (width, height)


@pytest.mark.parametrize("size", [(37, 20), (20, 33), (41, 23), (29, 29), (20, 23), (20, 27)])
def test_evaluation_crops_are_torchvisions(size: tuple[int, int]) -> None:
    """Resize and CenterCrop, whose offsets round halves to even: margins of 1, 3, 5, 7 pixels are cut differently."""
    random = np.random.default_rng(0)
    image, label = (random.integers(0, 256, (*size, *rest), dtype=np.uint8) for rest in ((3,), ()))
    for side in range(17, 24):
        found = paper_crop(Sample(image, label), side)
        for ours, pixels, how in ((found.image, image, "BILINEAR"), (found.label, label, "NEAREST")):
            resized = Resize(side, Mode[how])(Image.fromarray(pixels))
            np.testing.assert_array_equal(ours, np.array(CenterCrop(side)(resized)))


def resizes_bytes() -> bool:
    """Whether torchvision resizes 8-bit images as torch does."""
    image = torch.randint(0, 256, (1, 3, 64, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours = torch.nn.functional.interpolate(image, (48, 48), mode="bilinear", antialias=True)
    return torch.equal(v2.functional.resize(image, [48, 48], antialias=True), ours)


RESIZES_BYTES = resizes_bytes()


@pytest.mark.parametrize("seed", range(20))
def test_augmentation_is_torchvisions_to_the_bit(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width, side = (int(number) for number in random.integers(20, 200, 3))
    image = random.integers(0, 256, (height, width, 3)).astype(np.uint8)
    label = random.integers(0, 256, (height, width)).astype(np.uint8)
    config = Data(crop_size=side)
    expected = []
    for pixels, how in ((image.transpose(2, 0, 1), Mode.BILINEAR), (label[None], Mode.NEAREST_EXACT)):
        crop = v2.RandomResizedCrop(side, config.scale, config.ratio, how, antialias=True)
        torch.manual_seed(seed)
        both = v2.Compose([crop, v2.RandomHorizontalFlip(config.flip)])
        expected.append(both(tv_tensors.Image(torch.from_numpy(pixels))).as_subclass(torch.Tensor))
    expected[1] = expected[1][0]
    torch.manual_seed(seed)
    found = TrainTransform(config)(Sample(image, label))
    for ours, other in zip(found, expected, strict=True):
        assert ours.is_contiguous()
        # Earlier versions of torchvision resize by way of floats on some processors, and round to the next level.
        torch.testing.assert_close(ours, other, rtol=0, atol=0 if RESIZES_BYTES else 1)


@pytest.mark.parametrize("side", [24, 96])
def test_augmented_labels_lie_on_their_image(side: int) -> None:
    """An image that is its own label: where the two differ after augmentation, they do on either side of an edge alike."""
    label = np.zeros((64, 80), np.uint8)
    label[20:44, 30:61] = 1
    transform = TrainTransform(Data(crop_size=side, scale=(0.9, 1.0), flip=0))
    excess = 0.0
    for seed in range(40):
        torch.manual_seed(seed)
        image, found = transform(Sample((label * 255)[..., None].repeat(3, 2), label))
        along = torch.arange(side) + 0.5
        seen, labelled = (maps.double() / maps.double().sum() for maps in (image[0], found))
        excess += float(((seen - labelled).sum(dim=0) * along).sum() + ((seen - labelled).sum(dim=1) * along).sum())
    assert abs(excess / 80) < 0.1


class _Numbered:
    """Images that are all of one grey value, their own number."""

    def __init__(self, numbers: range) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def load(self, index: int) -> Sample:
        return Sample(np.full((8, 8, 3), self.numbers[index], np.uint8), np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize(("share", "replayed"), [(None, 40), (0.5, 20), (0.2, 5), (0.9, 40), (0.001, 1)])
def test_a_bounded_share_of_replayed_samples(share: float | None, replayed: int) -> None:
    """Of 20 new and 40 replayed samples: the new ones are all there; which of the others are changes from pass to pass."""
    sources = [_Numbered(range(20)), _Numbered(range(100, 130)), _Numbered(range(200, 210))]
    samples = TrainingSet(sources, TrainTransform(Data(crop_size=16)), share)
    assert len(samples) == 20 + replayed
    shown: list[set[int]] = []
    for first in (0, 1000):
        found = [samples[(position, first + position)] for position in range(len(samples))]
        values = [int(image[0, 0, 0]) for image, _, _ in found]
        assert values[:20] == list(range(20))
        assert [flag for _, _, flag in found] == [False] * 20 + [True] * replayed
        shown.append(set(values[20:]))
    assert all(value >= 100 for value in shown[0] | shown[1])
    whole = set(range(100, 130)) | set(range(200, 210))
    assert (shown[0] == shown[1] == whole) if replayed == 40 else (shown[0] != shown[1])


class _Squares:
    """Image k is of grey value 10 + k, with an object of value 100 + k, label k, in a column of its own; one corner is ignored."""

    def __len__(self) -> int:
        return 4

    def load(self, index: int) -> Sample:
        image, label = np.full((16, 16, 3), 10 + index, np.uint8), np.zeros((16, 16), np.uint8)
        if index:
            image[2:6, 4 * index - 2 : 4 * index], label[2:6, 4 * index - 2 : 4 * index] = 100 + index, index
        label[15, 15] = IGNORE
        return Sample(image, label)


def as_it_is(sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(sample.image).permute(2, 0, 1), torch.from_numpy(sample.label)


def test_own_objects_are_pasted_with_their_labels_where_they_were() -> None:
    squares, pasted = _Squares(), TrainingSet([_Squares(), _Numbered(range(8, 9))], as_it_is, own_pastes=0.5)
    plain, changed, total = TrainingSet([squares], as_it_is), 0, 0
    for seed in range(100):
        image, label, _ = pasted[(1, seed)]
        own_image, own_label, _ = plain[(1, seed)]
        added = [k for k in (2, 3) if (label == k).any()]
        assert len(added) <= 1
        for k in added:
            there = plain[(k, 0)]
            own_image[:, there[1] == k], own_label[there[1] == k] = 100 + k, k
        assert torch.equal(image, own_image)
        assert torch.equal(label, own_label)
        changed, total = changed + len(added), total + 1
        assert torch.equal(pasted[(1, seed)][0], image)
    assert 10 < changed < 45, "half of the samples get the objects of one of four images, two of which hold others"


def test_augmentation_keeps_image_and_label_together_and_follows_its_key() -> None:
    label = np.random.default_rng(0).integers(0, 2, (8, 8)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    source = _Constant(Sample((label * 255)[..., None].repeat(3, 2), label))
    samples = TrainingSet([source, source], TrainTransform(Data(crop_size=32)))
    assert len(samples) == 6
    before = torch.default_generator.get_state()
    image, augmented, replayed = samples[(4, 17)]
    assert replayed
    assert not samples[(2, 17)][2]
    assert torch.equal(torch.default_generator.get_state(), before)
    assert torch.equal(samples[(4, 17)][0], image)
    assert not torch.equal(samples[(4, 18)][0], image)
    assert image.shape == (3, 32, 32)
    assert image.dtype == augmented.dtype == torch.uint8
    agree = ((image[0] > 127) == augmented.bool()).float().mean()
    assert agree > 0.9


class _Constant:
    def __init__(self, sample: Sample) -> None:
        self.sample = sample

    def __len__(self) -> int:
        return 3

    def load(self, index: int) -> Sample:
        return self.sample


def test_batches_are_a_function_of_seed_and_iteration() -> None:
    whole = list(BatchStream(7, 3, 5, 0, 10))
    assert list(BatchStream(7, 3, 5, 4, 10)) == whole[4:]
    assert len(BatchStream(7, 3, 5, 4, 10)) == 6
    assert list(BatchStream(7, 3, 6, 0, 10)) != whole
    keys = [key for batch in whole for key in batch]
    assert [sorted(position for position, _ in keys[i : i + 7]) for i in range(0, 28, 7)] == 4 * [list(range(7))]
    assert len({seed for _, seed in keys}) == len(keys)


def test_held_out_images_are_tested_on_and_no_others(root: Path) -> None:
    whole, tuning = (open_dataset(Folder(kind="folder", root=root, hold_out=every)) for every in (None, 2))
    assert tuning.train.ids == ["t0", "t2"]
    assert tuning.val.ids == ["t1"]
    assert np.array_equal(tuning.val.load(0).image, whole.train.load(1).image)
    assert np.array_equal(tuning.train.load_label(1), whole.train.load_label(2))
    assert tuning.val.present(0) == whole.train.present(1)
    assert tuning.train.sample_fingerprint(1) == whole.train.sample_fingerprint(2)
    assert len({split.fingerprint() for split in (whole.train, tuning.train, tuning.val)}) == 3
