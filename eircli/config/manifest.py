"""The run manifest: every choice of a run as one frozen, typed tree, each field with its meaning.

The defaults here and what data sets imply (`config/datasets.py`) are the paper's settings. This module imports no torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from eircli.common.suggest import did_you_mean
from eircli.config.backbones import BACKBONES, DEFAULT_BACKBONE, TIMM
from eircli.config.budget import Budget, parse_budget
from eircli.config.datasets import Dataset
from eircli.config.memory_kinds import MEMORY_KINDS, MemoryKindEntry
from eircli.config.methods import MethodConfig
from eircli.config.runtime import Runtime
from eircli.config.section import Activation, Cache, Fraction, PositiveInt, Section, Weight

Setting = Literal["overlapped", "disjoint", "partitioned"]


class Protocol(Section):
    """The class schedule, and which images and labels belong to a step."""

    schedule: str | tuple[tuple[int, ...], ...]
    """"joint", "A-B" (A classes first, then B per step; "A-B-C": the last size repeats) or class ids of every step."""
    setting: Setting = "overlapped"
    """overlapped: all images with a new class; disjoint: only those without a class of a later step; partitioned: every
    image belongs to exactly one step, that of one of its classes drawn at random."""
    order: tuple[int, ...] | str | None = None
    """The order in which "A-B" takes the class ids: a list, "seed:N" (shuffled), or one of the commonly used shuffled
    VOC 15-1 orders by name ("voc-15-1-b" to "voc-15-1-w"); ascending if none."""
    unseen_at_test: Literal["background", "ignore"] = "background"
    """What pixels of classes not yet learned count as in evaluation."""


class Data(Section):
    """Augmentation and caching of the training images."""

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
    cache: Cache = "none"
    """Where decoded (and resized) training images are kept. ram: in memory, by each worker process its own, so for small sets or
    runtime.workers 0; disk: as raw files in the cache folder, for all steps, runs and workers (VOC: 8 GB)."""

    @model_validator(mode="after")
    def _ranges_rise(self) -> Data:
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high:
                raise ValueError(f"{name}: [{low}, {high}] must be two positive numbers, the smaller first")
        return self


class Model(Section):
    """The network, its starting weights, and how new classifiers start."""

    backbone: str = DEFAULT_BACKBONE
    """A name in the table `BACKBONES` of `config/backbones.py`: torchvision's, or `efficientnet_lite0` (extra lite0), or
    `tiny`: about 250k parameters, output stride 4, for small images; or `timm:NAME[.TAG]`, one of timm's (extra timm)."""
    weights: str = "imagenet"
    """Backbone weights at the base step: imagenet (torchvision's V1; of efficientnet_lite0 a package's; of timm's networks
    those of the tag, else timm's default), none, or a state-dict file (.safetensors, or torch's)."""
    aspp_channels: PositiveInt = 256
    """Channels of the ASPP and of the features that the classifiers read."""
    aspp_rates: tuple[PositiveInt, ...] = (6, 12, 18)
    """Dilation rates of the ASPP."""
    dropout: Fraction = 0.1
    """Dropout after the ASPP's projection, where a step trains with dropout."""
    batchnorm_momentum: Fraction = 0.01
    """Momentum of the backbone's BatchNorm statistics."""
    detach_background: bool = True
    """The background classifier reads detached features: its loss sends no gradient into backbone and head."""
    new_classifier: Literal["background", "balanced", "unknown", "similar", "rare", "random"] = "background"
    """How a new step's classifiers start: as copies of the background classifier; the same with the background's
    probability split among them (MiB); as copies of the unknown class's classifier (SSUL); as means of the old classes'
    that the old model sees in the new classes' objects, the more of them the heavier (SELECT); at a probability of 0.01
    everywhere, so that their first losses shake no features; or at random."""
    unknown_class: bool = False
    """From step 1 on, a classifier of the unknown class: neither a class nor background (SSUL)."""

    @field_validator("backbone")
    @classmethod
    def _backbone_is_known(cls, name: str) -> str:
        if name not in BACKBONES and (name == TIMM or not name.startswith(TIMM)):
            known = f"one of {', '.join(BACKBONES)}, or {TIMM}NAME"
            raise ValueError(f"{name!r} is unknown; {did_you_mean(name, BACKBONES)}{known}")
        return name


class Memory(Section):
    """The memory's budget, and how its exemplars are selected and encoded."""

    budget: int | str = 100
    """How much is kept of all old classes together: a count of exemplars, or bytes such as 500kB, 2MB, 1.5MiB."""
    selection: Literal["single-component", "component", "instance"] = "single-component"
    """single-component: a class's pixels in an image when they form one component; component: any large enough one; instance: an
    object as it was annotated, as far as it is seen, if large enough, of data sets that tell objects apart."""
    min_area: PositiveInt = 64
    """The least area of an instance under `selection: component` and `instance`, pixels."""
    rule: Literal["random", "largest", "confident", "diverse"] = "random"
    """Which candidates of a class come first: at random, by area, by the model's confidence, or farthest from those
    before in the model's features."""
    current_labels: bool = False
    """Whether a stored image that is among the step's images too also shows the new classes there, as DKD-M's released code has
    it; else they are background in it."""
    ring: Weight = 0.25
    """Foveated instances: how far around an object's box pixels are kept as they are, as a fraction of the box's height and width."""
    thumbnail: Annotated[int, Field(ge=1, le=64)] = 4
    """Foveated instances: by how much their whole image is shrunk, height and width."""
    encoding: Literal["jpeg", "png", "webp", "avif"] = "jpeg"
    """How the pixels are stored; WebP and AVIF need a Pillow that has them. PNG is lossless; WebP halves the resolution of colour."""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """Quality of JPEG, WebP or AVIF pixels, as each counts it: the same number is coarser in AVIF than in JPEG."""

    @field_validator("budget", mode="before")
    @classmethod
    def _budget_is_readable(cls, budget: object) -> object:
        parse_budget(budget)
        return budget

    @property
    def limit(self) -> Budget:
        """The budget, parsed."""
        return parse_budget(self.budget)

    @property
    def needs_model(self) -> bool:
        """Whether the rule scores candidates with the model of the step before."""
        return self.rule in ("confident", "diverse")


class StepTraining(Section):
    """How one step is optimised."""

    iterations: PositiveInt | None = None
    """Length of a step in iterations; give this or `epochs`."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Length of a step in passes over its samples; give this or `iterations`."""
    batch_size: PositiveInt = 24
    """Samples per iteration, of all processes and micro-batches together."""
    accumulate: PositiveInt = 1
    """Gradient accumulation: micro-batches per iteration. BatchNorm in training mode takes its statistics per micro-batch."""
    lr: Annotated[float, Field(gt=0)] = 1e-4
    """Learning rate of the backbone."""
    head_lr_factor: Annotated[float, Field(gt=0)] = 10.0
    """The ASPP and the classifiers learn at this multiple of `lr`."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov momentum, or AdamW (betas 0.9 and 0.999), as transformers are mostly trained."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """The backbone's last block learns at `lr`, each before it, then the stem, at this multiple of the next; none: all at `lr`."""
    momentum: Fraction = 0.9
    """Nesterov momentum of SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Weight decay; AdamW's leaves norms, biases and embeddings alone."""
    weight_decay_on: Literal["all", "new-classifier"] = "new-classifier"
    """Which parameters get weight decay."""
    poly_power: Annotated[float, Field(ge=0)] = 0.9
    """Power of the polynomial decay of the learning rate."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the iterations over which the learning rate first rises linearly."""
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """The gradient's norm is clipped to this; none: no clipping."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per iteration (less in the first) of an exponential moving average of the weights, which becomes the step's model; none:
    the last weights."""
    frozen_batchnorm: bool = True
    """BatchNorm uses and keeps its running statistics, and its affine parameters do not learn."""
    dropout: bool = False
    """Whether dropout is on."""

    @model_validator(mode="after")
    def _can_be_trained(self) -> StepTraining:
        if (self.iterations is None) == (self.epochs is None):
            raise ValueError("give either iterations or epochs")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of accumulate {self.accumulate}")
        if self.batch_size == self.accumulate and not self.frozen_batchnorm:
            raise ValueError(
                "BatchNorm cannot learn from single images: give batch_size of 2 or more per micro-batch, or frozen_batchnorm: true"
            )
        return self


class Train(StepTraining):
    """How the steps after the base step are optimised, and the base step."""

    base: StepTraining
    """The base step's settings; missing keys are taken from `train`."""


class Evaluate(Section):
    """How a step's model is evaluated."""

    batch_size: PositiveInt = 8
    """Images per forward pass; whole images of differing sizes go one by one."""
    absent_class: Literal["zero", "skip"] = "zero"
    """A class without a pixel in truth or prediction counts 0 (as the authors have it) or is left out of means."""


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
    def _unknown_class_is_there(self) -> Manifest:
        if self.method.learns_unknown_class and not self.model.unknown_class:
            raise ValueError(f"method {self.method.name} needs model.unknown_class: true")
        if self.model.new_classifier == "unknown" and not self.model.unknown_class:
            raise ValueError("model.new_classifier unknown needs model.unknown_class: true")
        return self

    @model_validator(mode="after")
    def _reserved_classifiers_start_themselves(self) -> Manifest:
        if self.method.reserves_channels and self.model.new_classifier != "random":
            raise ValueError(f"method {self.method.name} has its new classifiers already: model.new_classifier must be random")
        return self

    @model_validator(mode="after")
    def _current_labels_have_images(self) -> Manifest:
        kind = self.memory_kind
        if self.memory.current_labels and not (kind and kind.whole_images):
            raise ValueError("memory.current_labels is about whole stored images, which this method does not keep")
        return self

    @model_validator(mode="after")
    def _instances_are_known(self) -> Manifest:
        if self.memory.selection == "instance" and not self.dataset.knows_instances:
            raise ValueError(
                f"memory.selection instance needs annotations that tell objects apart, which dataset {self.dataset.kind} as set does "
                "not have: give component or single-component"
            )
        return self

    @model_validator(mode="after")
    def _slots_fit(self) -> Manifest:
        side = self.method.slot_side
        if side is not None and side > self.data.crop_size:
            raise ValueError(f"method.slot {side} is larger than data.crop_size {self.data.crop_size}")
        return self

    def training(self, step: int) -> StepTraining:
        """How `step` is optimised."""
        return self.train if step else self.train.base

    @property
    def memory_kind(self) -> MemoryKindEntry | None:
        """What the method keeps of old classes from step to step; None if nothing."""
        return None if self.method.keeps is None else MEMORY_KINDS[self.method.keeps]

    @property
    def memory_needs_model(self) -> bool:
        """Whether what is kept depends on the model of the step before, not on its images alone."""
        kind = self.memory_kind
        return kind is not None and (kind.from_model or self.memory.needs_model)

    def activation(self, step: int) -> Activation:
        """How the logits of a step's model become predictions."""
        return self.method.activation(step)
