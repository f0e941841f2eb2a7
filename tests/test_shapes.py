"""The synthetic data set."""

import numpy as np
import pytest

from eircli.common.errors import UserError
from eircli.config.datasets import Shapes
from eircli.data.shapes import CLASSES, shapes


def config(**changes: object) -> Shapes:
    return Shapes.model_validate({"kind": "shapes", "train_images": (30, 20, 20), "val_images": 60, "seed": 1, **changes})


def test_images_are_a_function_of_the_seed() -> None:
    one, same, other = (shapes(config(seed=seed)) for seed in (1, 1, 2))
    for index in (0, 17, 69):
        image, label = one.train.load(index)
        np.testing.assert_array_equal(image, same.train.load(index).image)
        np.testing.assert_array_equal(label, same.train.load(index).label)
        assert (image != other.train.load(index).image).any()
    assert (one.train.load(0).image != one.val.load(0).image).any()
    assert one.train.fingerprint() == same.train.fingerprint() != other.train.fingerprint()


def test_every_image_shows_a_class_of_its_group() -> None:
    train = shapes(config()).train
    for index in range(len(train)):
        own = range(1, 7) if index < 30 else range(7, 9) if index < 50 else range(9, 11)
        assert set(train.present(index)) & set(own)


def test_co_occurrence_decides_how_often_other_classes_appear() -> None:
    def foreign(co_occurrence: float) -> int:
        train = shapes(config(co_occurrence=co_occurrence)).train
        return sum(bool(set(train.present(index)) & set(range(7, 11))) for index in range(30))

    assert foreign(0.0) == 0
    assert foreign(0.0) < foreign(0.3) < foreign(1.0)


def test_validation_shows_all_classes_alike() -> None:
    val = shapes(config(val_images=200)).val
    counts = np.bincount(np.concatenate([val.present(index) for index in range(200)]), minlength=11)
    assert counts.shape == (11,)
    assert counts[1:].min() > 15


@pytest.mark.parametrize("size", [32, 64, 100])
def test_sizes_and_types(size: int) -> None:
    image, label = shapes(config(size=size)).train.load(0)
    assert image.shape == (size, size, 3)
    assert label.shape == (size, size)
    assert image.dtype == label.dtype == np.uint8
    assert label.any()


def test_a_class_is_told_by_no_single_cue() -> None:
    cues = [name.split() for name in CLASSES[:12]]
    for texture, hue, shape in cues:
        others = [other for other in cues if other != [texture, hue, shape]]
        assert any(texture == other[0] for other in others)
        assert any(hue == other[1] or shape == other[2] for other in others)
    assert len({tuple(cue) for cue in cues}) == 12


def test_too_many_classes() -> None:
    with pytest.raises(UserError, match=r"dataset\.groups: asks for 18 classes, there are 16"):
        shapes(config(groups=(6, 6, 6)))
