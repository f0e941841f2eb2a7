"""The run manifest: every choice of a run as one frozen, typed tree, each field with its meaning.

The defaults here and in `recipe.PAPER` are the paper's settings. Importing this module costs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from eircli.protocols import Setting

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the manifest: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


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


class Protocol(Section):
    schedule: str | tuple[tuple[int, ...], ...]
    """"joint", "A-B" (A classes first, then B per step; "A-B-C": the last size repeats) or class ids of every step."""
    setting: Setting = "overlapped"
    """overlapped: all images with a new class; disjoint: only those without a class of a later step."""
    order: tuple[int, ...] | None = None
    """The order in which "A-B" takes the class ids; ascending if none."""
    unseen_at_test: Literal["background", "ignore"] = "background"
    """What pixels of classes not yet learned count as in evaluation."""


class Data(Section):
    crop_size: Annotated[int, Field(ge=16)] = 512
    """Side of the square training crops, and of the paper's evaluation crops, pixels."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the area of the random resized crop, as a share of the image."""
    ratio: tuple[float, float] = (0.75, 4 / 3)
    """Range of the aspect ratio of the random resized crop."""
    flip: Fraction = 0.5
    """Chance of a horizontal flip."""
    short_side: PositiveInt | None = None
    """Images are first resized to this short side, pixels; none keeps their own size."""
    cache: Literal["none", "ram"] = "none"
    """ram keeps the decoded (and resized) images of a step in memory."""

    @model_validator(mode="after")
    def _ranges_rise(self) -> Data:
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high:
                raise ValueError(f"{name}: [{low}, {high}] must be two positive numbers, the smaller first")
        return self


class Model(Section):
    backbone: Literal["resnet101", "resnet50", "resnet18", "tiny"] = "resnet101"
    """The torchvision backbone, or `tiny`: about 250k parameters, output stride 4, for small images."""
    weights: str = "imagenet"
    """Backbone weights at the base step: imagenet (torchvision's V1), none, or a state-dict file."""
    aspp_channels: PositiveInt = 256
    """Channels of the ASPP and of the features that the classifiers read."""
    aspp_rates: tuple[PositiveInt, ...] = (6, 12, 18)
    """Dilation rates of the ASPP."""
    dropout: Fraction = 0.1
    """Dropout after the ASPP's projection, where a step trains with dropout."""
    batchnorm_momentum: Fraction = 0.01
    """Momentum of the backbone's BatchNorm statistics."""
    detach_background: bool = True
    """The background classifier reads detached features: it does not shape them."""
    new_classifier: Literal["background", "random"] = "background"
    """How a new step's classifiers start: as copies of the background classifier, or at random."""


class Distill(Section):
    weight: Annotated[float, Field(ge=0)] = 5.0
    """Factor of the distillation loss; 0 switches it off."""
    region: Literal["outside-new", "inside-new", "all"] = "outside-new"
    """Distilled pixels: those without a new class's label before fusion, those with one, or all (never ignored ones)."""


class Finetune(Section):
    name: Literal["finetune"]
    positive_weight: Annotated[float, Field(gt=0)] | None = None
    """Weight of the positive term of the cross-entropy; none is 1."""


class Eir(Section):
    name: Literal["eir"]
    positive_weight: Annotated[float, Field(gt=0)] | None = None
    """Weight of the positive term of the cross-entropy; none is 1."""
    pseudo_labels: bool = True
    """Label background pixels with what the old model still sees."""
    threshold: Fraction = 0.7
    """The least sigmoid of a pseudo-label."""
    fusion: bool = True
    """Paste instances of old classes into the new images."""
    paste: Literal["mixup", "hard"] = "mixup"
    """mixup blends image and labels by λ ~ Beta(mixup_beta); hard replaces them (λ = 1)."""
    mixup_beta: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1.0, 1.0)
    """The two parameters of the Beta distribution that λ is drawn from, once per paste."""
    pastes: Annotated[int, Field(ge=1, le=16)] = 3
    """The most potential classes of an image, slots, and pastes into it."""
    flip: Fraction = 0.5
    """Chance that a pasted instance is flipped horizontally."""
    slot: PositiveInt = 250
    """Side of the square slots that instances are scaled to, pixels of the crop."""
    fillers: Literal["best-slot", "spread", "none"] = "best-slot"
    """Where instances of random old classes go: all into the best slot (the authors), the free slots, or nowhere."""
    fillers_below: Annotated[int, Field(ge=0)] = 2
    """Images with fewer potential classes than this are filled up to `pastes` pastes."""
    standalone_replay: bool = True
    """Also train on the bank's instances on a blank canvas."""
    distill: Distill = Distill()
    """Region-specific knowledge distillation (RSKD)."""


Dataset = Annotated[Voc | Ade20k | Folder | Shapes, Field(discriminator="kind")]
MethodConfig = Annotated[Finetune | Eir, Field(discriminator="name")]


class Memory(Section):
    budget: PositiveInt = 100
    """Instances in the bank, over all old classes together."""
    selection: Literal["single-component", "component"] = "single-component"
    """single-component: a class's pixels in an image when they form one component; component: any large enough one."""
    min_area: PositiveInt = 64
    """The least area of an instance under `selection: component`, pixels."""
    encoding: Literal["jpeg", "png"] = "jpeg"
    """How the pixels are stored."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 95
    """Quality of JPEG pixels."""


class StepTraining(Section):
    """How one step is optimised."""

    iterations: PositiveInt | None = None
    """Length of a step in iterations; give this or `epochs`."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Length of a step in passes over its samples; give this or `iterations`."""
    batch_size: PositiveInt = 24
    """Samples per iteration."""
    lr: Annotated[float, Field(gt=0)] = 1e-4
    """Learning rate of the backbone."""
    head_lr_factor: Annotated[float, Field(gt=0)] = 10.0
    """The ASPP and the classifiers learn at this multiple of `lr`."""
    momentum: Fraction = 0.9
    """Nesterov momentum of SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Weight decay of SGD."""
    weight_decay_on: Literal["all", "new-classifier"] = "new-classifier"
    """The parameters that decay."""
    poly_power: Annotated[float, Field(ge=0)] = 0.9
    """Power of the polynomial decay of the learning rate."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the iterations over which the learning rate first rises linearly."""
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """The gradient's norm is clipped to this; none does not clip."""
    frozen_batchnorm: bool = True
    """BatchNorm uses and keeps its running statistics."""
    dropout: bool = False
    """Whether dropout is on."""

    @model_validator(mode="after")
    def _can_be_trained(self) -> StepTraining:
        if (self.iterations is None) == (self.epochs is None):
            raise ValueError("give either iterations or epochs")
        if self.batch_size == 1 and not self.frozen_batchnorm:
            raise ValueError("BatchNorm cannot learn from single images: give batch_size 2 or more, or frozen_batchnorm: true")
        return self


class Train(StepTraining):
    base: StepTraining
    """The same for the base step; what a recipe leaves out here is as above."""


class Evaluate(Section):
    batch_size: PositiveInt = 8
    """Images per forward pass; whole images of differing sizes go one by one."""
    absent_class: Literal["zero", "skip"] = "zero"
    """A class without a pixel in truth or prediction counts 0 (as the authors have it) or is left out of means."""


class Runtime(Section):
    """How a run is carried out. May differ between the commands on a run; the result is the same."""

    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto is bf16 on CUDA and fp32 on the CPU; fp16 scales its losses."""
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Processes that decode images; auto is one per core, at most 8; 0 decodes in the main process."""
    checkpoint_minutes: Annotated[float, Field(ge=0)] = 5.0
    """Minutes between two checkpoints of an unfinished step."""
    checkpoint_epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the samples between two checkpoints, beside `checkpoint_minutes`."""
    log_every: PositiveInt = 10
    """Iterations between two journal entries, at which losses are checked to be finite."""


class Manifest(Section):
    """A whole run, fully resolved."""

    name: str
    """Name of the run; the recipe's file name unless given."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seeds everything random in the run."""
    dataset: Dataset
    protocol: Protocol
    method: MethodConfig
    data: Data = Data()
    model: Model = Model()
    memory: Memory = Memory()
    train: Train
    evaluate: Evaluate = Evaluate()
    runtime: Runtime = Runtime()

    @model_validator(mode="after")
    def _slots_fit(self) -> Manifest:
        if isinstance(self.method, Eir) and self.method.fusion and self.method.slot > self.data.crop_size:
            raise ValueError(f"method.slot {self.method.slot} is larger than data.crop_size {self.data.crop_size}")
        return self

    def training(self, step: int) -> StepTraining:
        """How `step` is optimised."""
        return self.train if step else self.train.base

    @property
    def replays(self) -> bool:
        """Whether the method keeps a bank."""
        return isinstance(self.method, Eir) and (self.method.fusion or self.method.standalone_replay)
