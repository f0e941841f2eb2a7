"""The settings of every data set: the manifest's `dataset` section is one of these, discriminated by `kind`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from eircli.config.section import Fraction, PositiveInt, Section

VOC_PASTES = {"slot": 250, "fillers_below": 2}
ADE_PASTES = {"slot": 200, "fillers_below": 1}

COMMON_SETTING: Mapping[str, object] = {
    "data": {"crop_size": 512},
    "method": {"eir": VOC_PASTES, "eir-plus": VOC_PASTES},
    "memory": {"budget": 100},
    "train": {
        "epochs": 60,
        "batch_size": 24,
        "lr": 1e-4,
        "base": {"lr": 1e-3, "weight_decay_on": "all", "frozen_batchnorm": False, "dropout": True},
    },
}

VOC_SETTING: Mapping[str, object] = {
    **COMMON_SETTING,
    "method": {"eir": VOC_PASTES, "eir-plus": VOC_PASTES, "star": {"positive_weight": 4.0}},
    "own_base_step": {"dkd": {"base_positive_weight": 2.0}},
}

ADE20K_SETTING: Mapping[str, object] = {
    "protocol": {"unseen_at_test": "ignore"},
    "data": {"crop_size": 512},
    "method": {
        "eir": ADE_PASTES,
        "eir-plus": ADE_PASTES,
        "dkd": {"positive_weight": 35.0},
        "star": {"positive_weight": 30.0},
    },
    "own_base_step": {"dkd": {"base_positive_weight": 35.0}},
    "memory": {"budget": 300},
    "train": {
        "epochs": 100,
        "batch_size": 24,
        "lr": 2.5e-4,
        "warmup": 0.2,
        "base": {"lr": 2.5e-3, "weight_decay_on": "all", "frozen_batchnorm": False, "dropout": True},
    },
}


class DatasetSettings(Section):
    """Settings common to all data sets."""

    implies: ClassVar[Mapping[str, object]] = COMMON_SETTING
    """Defaults that selecting the data set sets in other sections: the paper's setting (methods/README.md §5, §6). Those under
    `method` stand by the method's name, those under `own_base_step` too: of a method whose base step is its own."""
    hold_out: Annotated[int, Field(ge=2)] | None = None
    """Take every N-th training image out of training and evaluate on these, never on the validation images: to choose
    constants by. None evaluates on the validation images."""

    @property
    def knows_instances(self) -> bool:
        """Whether the annotations tell objects of a class apart (`KnowsInstances`, `memory.selection: instance`)."""
        return False


class Voc(DatasetSettings):
    """PASCAL VOC 2012."""

    implies: ClassVar[Mapping[str, object]] = VOC_SETTING
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


class Ade20k(DatasetSettings):
    """ADE20K scene parsing."""

    implies: ClassVar[Mapping[str, object]] = ADE20K_SETTING
    kind: Literal["ade20k"]
    root: Path
    """The folder ADEChallengeData2016: images/{training,validation}, annotations/{training,validation}."""


class Folder(DatasetSettings):
    """A folder of images and labels."""

    kind: Literal["folder"]
    root: Path
    """The folder with images/SPLIT, annotations/SPLIT (single-channel PNG of class ids) and classes.txt."""
    train_split: str = "training"
    """Name of the folder of training images."""
    val_split: str = "validation"
    """Name of the folder of validation images."""
    classes: tuple[str, ...] | None = None
    """Some of the classes by name, in the order in which they get the ids 1, 2, …; the others become background."""


class Annotations(DatasetSettings):
    """Settings common to annotations of people's own, as annotation tools write them."""

    root: Path
    """The folder from which the other paths count."""
    classes: tuple[str, ...] | None = None
    """Some of the classes by name, in the order in which they get the ids 1, 2, …; the others become background."""
    val_every: Annotated[int, Field(ge=2)] | None = None
    """Without a validation part of its own: every N-th image, by name, is validation instead of training."""


class OwnParts(Annotations):
    """Annotations whose recipe names their parts."""

    val: str | None = None
    """The validation part, named as `train` is; or give `val_every`."""

    @model_validator(mode="after")
    def _one_validation_part(self) -> OwnParts:
        if (self.val is None) == (self.val_every is None):
            raise ValueError("give either val, the validation part, or val_every: N, to take every N-th image for it")
        return self


class Coco(OwnParts):
    """COCO instance annotations: polygons, and RLE."""

    kind: Literal["coco"]
    train: str
    """The annotation file (JSON) of the training images, in `root`."""
    train_images: Path | None = None
    """The folder in `root` from which `file_name` counts in `train`; none: the annotation file's."""
    val_images: Path | None = None
    """The same for `val`; none: the annotation file's."""

    @property
    def knows_instances(self) -> bool:
        return True


class Labelme(OwnParts):
    """LabelMe annotations, a JSON file for each image."""

    kind: Literal["labelme"]
    train: str = "."
    """The folder in `root` of the JSON files of training images."""

    @property
    def knows_instances(self) -> bool:
        return True


class Yolo(Annotations):
    """YOLO segmentation: polygons in a text file for each image. `root` is the data set's folder, whatever `path` data.yaml has."""

    kind: Literal["yolo"]
    data: Path = Path("data.yaml")
    """The file in `root` with `names`, `train` and `val`."""

    @property
    def knows_instances(self) -> bool:
        return True


class Masks(OwnParts):
    """Colour masks with a labelmap.txt: CVAT's "segmentation mask 1.1", and others in PASCAL VOC's folders."""

    kind: Literal["masks"]
    train: str = "train"
    """Name of the list of training images in ImageSets/Segmentation; of CVAT's often `default`."""
    images: Path = Path("JPEGImages")
    """The folder of the images in `root`."""
    labels: Path = Path("SegmentationClass")
    """The folder of the masks in `root`: a colour for each class."""
    objects: Path | None = None
    """The folder of the masks with a colour for each object, such as SegmentationObject; none: objects are not told apart."""
    labelmap: Path = Path("labelmap.txt")
    """The file in `root` with a line `name:red,green,blue::` for each class. `background` is no class."""
    ignore: tuple[str, ...] = ()
    """Names in it whose pixels are ignored."""

    @property
    def knows_instances(self) -> bool:
        return self.objects is not None


class Shapes(DatasetSettings):
    """Synthetic scenes of shapes, drawn from a seed."""

    kind: Literal["shapes"]
    size: Annotated[int, Field(ge=32, le=512)] = 64
    """Side of the square images, pixels."""
    groups: tuple[PositiveInt, ...] = (6, 2, 2)
    """Number of classes per image group; every image belongs to one group."""
    train_images: tuple[PositiveInt, ...] = (600, 250, 250)
    """Training images of each group."""
    val_images: PositiveInt = 200
    """Validation images, drawn from all classes alike."""
    co_occurrence: Fraction = 0.2
    """Chance that an object beyond a training image's first is of any class instead of its group's."""
    seed: int | None = None
    """Seed of image generation; the run's seed if none."""

    @model_validator(mode="after")
    def _one_count_per_group(self) -> Shapes:
        if len(self.train_images) != len(self.groups):
            raise ValueError(f"train_images has {len(self.train_images)} counts for {len(self.groups)} groups")
        return self


Labelled = Voc | Ade20k | Folder | Coco | Labelme | Yolo | Masks | Shapes


class Extended(DatasetSettings):
    """New images for a network that knows classes already: what `eir extend` makes."""

    kind: Literal["extended"]
    known: tuple[str, ...]
    """The names of the classes that the network was made with: class id k at position k - 1."""
    new: Annotated[tuple[str, ...], Field(min_length=1)]
    """The classes to learn, by name."""
    data: Annotated[Labelled, Field(discriminator="kind")]
    """The new images, labelled for the new classes; where they label known ones too, these are tested on."""
    before: tuple[Annotated[Labelled, Field(discriminator="kind")], ...] = ()
    """Data sets that the known classes were learned from: their test images are tested on too. Nothing is trained on them."""

    @property
    def knows_instances(self) -> bool:
        return self.data.knows_instances


AnyDataset = Labelled | Extended

Dataset = Annotated[AnyDataset, Field(discriminator="kind")]


def dataset_settings(kind: object) -> type[DatasetSettings] | None:
    """The settings that a `dataset.kind` names; None for an unknown one."""
    return next((s for s in get_args(AnyDataset) if kind in get_args(s.model_fields["kind"].annotation)), None)
