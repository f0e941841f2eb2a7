"""The settings of the methods that replay exemplars: EIR, what we make of it, and image replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from eircli.config.section import Distill, ExemplarReplay, Fraction, PositiveFloat, PositiveFraction, PositiveInt, Weight


class OffDistill(Distill):
    """Distillation that is off unless it has a weight."""

    weight: Weight = 0.0


class PlusDistill(Distill):
    """The decomposed objective without reasoning scores."""

    loss: Literal["rskd", "decomposed"] = "decomposed"
    weight: Weight = 1.5
    reasoning_weight: Weight = 0.0
    extents: bool = True


class EirSettings(ExemplarReplay):
    """Enhanced instance replay (Yin et al., CVPR 2025)."""

    name: Literal["eir"]
    pseudo_labels: bool = True
    """Label background pixels with the teacher's confident predictions."""
    fusion: bool = True
    """Paste instances of old classes into the new images."""
    paste: Literal["mixup", "hard"] = "mixup"
    """mixup blends image and labels by λ ~ Beta(mixup_beta); hard replaces them (λ = 1)."""
    mixup_beta: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """The two parameters of the Beta distribution that λ is drawn from, once per paste."""
    pastes: Annotated[int, Field(ge=1, le=16)] = 3
    """The most potential classes of an image, slots, and pastes into it."""
    flip: Fraction = 0.5
    """Chance that a pasted instance is flipped horizontally."""
    slot: PositiveInt = 250
    """Side of the square slots that instances are scaled to, pixels of the crop."""
    fillers: Literal["best-slot", "spread", "none"] = "best-slot"
    """Where instances of random old classes go: all into the best slot (the authors), the free slots, or nowhere."""
    slots: Literal["background", "unseen"] = "background"
    """Which slots come first: those with the most background after pseudo-labelling (the paper); or unseen: the same, but where the
    old model sees an old class, background counts by how unsure it is."""
    fillers_below: Annotated[int, Field(ge=0)] = 2
    """Images with fewer potential classes than this are filled up to `pastes` pastes."""
    paste_scale: Literal["slot", "native"] = "slot"
    """slot: an instance fills its slot (the paper); native: it keeps its size times 1/2 to 1, or shrinks to fit."""
    paste_over_new: bool = True
    """Pastes may cover pixels labelled with a new class (the paper); false leaves these pixels out of the paste."""
    feather: Annotated[int, Field(ge=0, le=8)] = 0
    """Pixels inside its rim over which a paste, and its label, fade; 0: a sharp edge (the paper)."""
    standalone_replay: bool = True
    """Also train on the bank's instances as samples of their own: on a blank canvas, or in their scenes if they are foveated."""
    memory: Literal["instances", "foveated"] = "instances"
    """What is kept of an object: itself alone, or with its surroundings (`memory.ring`, `memory.thumbnail`)."""
    surroundings: Literal["background", "ignore", "pseudo-labels"] = "background"
    """What stand-alone samples are outside their object: background; left out of the cross-entropy; or the teacher's confident
    predictions, the rest (if `distill.loss` is decomposed: all) left out. They are distilled in any case."""
    distill: Distill = Distill()
    """Region-specific knowledge distillation (RSKD)."""

    @model_validator(mode="after")
    def _settings_agree(self) -> EirSettings:
        if self.surroundings == "pseudo-labels" and not self.pseudo_labels:
            raise ValueError("surroundings: pseudo-labels needs pseudo_labels: true")
        if self.replay_share is not None and not self.standalone_replay:
            raise ValueError("replay_share bounds stand-alone replay, and standalone_replay is false")
        if self.memory == "foveated" and self.surroundings == "background":
            raise ValueError("memory: foveated needs surroundings: ignore or pseudo-labels, since other objects may be in them")
        if not self.pseudo_labels and (self.thresholds, self.slots) != ("fixed", "background"):
            raise ValueError("thresholds: median and slots: unseen need pseudo_labels: true")
        if self.fusion and not self.pseudo_labels and self.fillers == "none":
            raise ValueError("fusion pastes nothing with pseudo_labels: false and fillers: none; give fusion: false")
        return self

    @property
    def keeps(self) -> str | None:
        return self.memory if self.fusion or self.standalone_replay else None

    @property
    def replays_samples(self) -> bool:
        return self.standalone_replay

    @property
    def reads_memory(self) -> bool:
        return self.fusion

    @property
    def slot_side(self) -> int | None:
        return self.slot if self.fusion else None


class EirPlusSettings(EirSettings):
    """EIR with what holds up on photographs as on shapes (methods/README.md §9)."""

    implies: ClassVar[Mapping[str, object]] = {"memory": {"ring": 0.0, "thumbnail": 6, "encoding": "webp", "quality": 65}}
    name: Literal["eir-plus"]  # type: ignore[assignment]
    positive_weight: PositiveFloat | None = 2.5
    paste: Literal["mixup", "hard"] = "hard"
    fillers: Literal["best-slot", "spread", "none"] = "none"
    paste_over_new: bool = False
    memory: Literal["instances", "foveated"] = "foveated"
    surroundings: Literal["background", "ignore", "pseudo-labels"] = "ignore"
    replay_share: PositiveFraction | None = 0.35
    own_pastes: Fraction = 0.3
    distill: PlusDistill = PlusDistill()


class ImageReplaySettings(ExemplarReplay):
    """Whole stored images, with the labels they had when they were stored, as further training samples."""

    name: Literal["image-replay"]
    missing: Literal["pseudo-labels", "confident", "ignore", "background"] = "pseudo-labels"
    """A stored image's background: completed with pseudo-labels; only these, the rest left out; all left out; or background."""
    pseudo_labels: bool = False
    """Also label the new images' background with the teacher's confident predictions."""
    distill: OffDistill = OffDistill()
    """Distillation as in EIR; off by default."""
    memory: Literal["images", "foveated"] = "images"
    """What is stored of an image: all of it with its labels; or an object in a coarse picture of it, the rest being `missing`."""

    @model_validator(mode="after")
    def _settings_agree(self) -> ImageReplaySettings:
        makes_pseudo_labels = self.pseudo_labels or self.missing in ("pseudo-labels", "confident")
        if self.thresholds == "median" and not makes_pseudo_labels:
            raise ValueError(
                "thresholds: median needs pseudo-labels: give pseudo_labels: true, or missing: pseudo-labels or confident"
            )
        if self.distill.loss == "decomposed" and makes_pseudo_labels:
            raise ValueError(
                "distill.loss decomposed makes no pseudo-labels: give pseudo_labels: false and missing: ignore or background"
            )
        return self

    @property
    def keeps(self) -> str | None:
        return self.memory

    @property
    def reads_memory(self) -> bool:
        return False
