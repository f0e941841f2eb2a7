"""The settings of every data set: the manifest's `dataset` section is one of these, told apart by `kind`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from eircli.method_settings import Fraction, PositiveInt, Section


class Voc(Section):
    kind: Literal["voc"]
    root: Path
    """The devkit's folder: JPEGImages/, SegmentationClassAug/ (or SegmentationClass/), ImageSets/Segmentation/."""
    train_list: str = "train_aug"
    """Name of the list of training images in ImageSets/Segmentation: train_aug (10,582) or train (1,464)."""
    val_list: str = "val"
    """Name of the list of validation images."""
    labels: Literal["auto", "SegmentationClassAug", "SegmentationClass"] = "auto"
    """Folder of the labels; auto takes SegmentationClassAug for train_aug and SegmentationClass for other lists."""
    class_index: Path | None = None
    """A folder of LIST.txt files, a line per image with its name and class ids, read instead of every label file."""


class Ade20k(Section):
    kind: Literal["ade20k"]
    root: Path
    """The folder ADEChallengeData2016: images/{training,validation}, annotations/{training,validation}."""


class Folder(Section):
    kind: Literal["folder"]
    root: Path
    """The folder with images/SPLIT, annotations/SPLIT (single-channel PNG of class ids) and classes.txt."""
    train_split: str = "training"
    """Name of the folder of training images."""
    val_split: str = "validation"
    """Name of the folder of validation images."""
    classes: tuple[str, ...] | None = None
    """Some of the classes by name, in the order in which they get the ids 1, 2, …; the others become background."""


class Shapes(Section):
    kind: Literal["shapes"]
    size: Annotated[int, Field(ge=32, le=512)] = 64
    """Side of the square images, pixels."""
    groups: tuple[PositiveInt, ...] = (6, 2, 2)
    """How many classes each group of images is about; every image belongs to one group."""
    train_images: tuple[PositiveInt, ...] = (600, 250, 250)
    """Training images of each group."""
    val_images: PositiveInt = 200
    """Validation images, drawn from all classes alike."""
    co_occurrence: Fraction = 0.2
    """Chance that an object beyond a training image's first is of any class instead of its group's."""
    seed: int | None = None
    """Seed of the drawings; the run's seed if none."""

    @model_validator(mode="after")
    def _one_count_per_group(self) -> Shapes:
        if len(self.train_images) != len(self.groups):
            raise ValueError(f"train_images has {len(self.train_images)} counts for {len(self.groups)} groups")
        return self


Dataset = Annotated[Voc | Ade20k | Folder | Shapes, Field(discriminator="kind")]
