"""The settings of every method: the manifest's `method` section is one of these, discriminated by `name`.

Defaults are each paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from eircli.config.replay import EirPlusSettings, EirSettings, ImageReplaySettings
from eircli.config.section import (
    Activation,
    Fraction,
    MethodSettings,
    OptionalImages,
    OwnBase,
    PositiveFloat,
    PositiveInt,
    Weight,
)


class FinetuneSettings(MethodSettings):
    """The labels of the step as they are."""

    name: Literal["finetune"]


class DftSettings(OwnBase):
    """DFT* (Zhang et al., 2025): all frozen after the base step but the new classifier."""

    trained_with: ClassVar[Activation] = "softmax"
    implies: ClassVar[Mapping[str, object]] = {"model": {"new_classifier": "random"}}
    name: Literal["dft"]
    future_channels: bool = False
    """All classes of later steps have their channels in the soft-max from the base step on (the paper; needs `base_step: own`)."""

    @model_validator(mode="after")
    def _future_channels_have_a_base_step(self) -> DftSettings:
        if self.future_channels and self.base_step != "own":
            raise ValueError("future_channels are trained in the base step, so they need base_step: own")
        return self

    @property
    def reserves_channels(self) -> bool:
        return self.future_channels


class LwfSettings(OwnBase):
    """Learning without forgetting (Li & Hoiem, ECCV 2016), per pixel as in MiB's comparison."""

    trained_with: ClassVar[Activation] = "softmax"
    implies: ClassVar[Mapping[str, object]] = {"model": {"new_classifier": "random"}}
    name: Literal["lwf"]
    distill_weight: Weight = 100.0
    """Factor of the distillation loss (MiB's comparison)."""


class IltSettings(LwfSettings):
    """Incremental learning techniques (Michieli & Zanuttigh, ICCV workshops 2019)."""

    name: Literal["ilt"]  # type: ignore[assignment]
    feature_weight: Weight = 100.0
    """Factor of the distance of the encoder's features (MiB's comparison)."""


class MibSettings(LwfSettings):
    """Modeling the background (Cermelli et al., CVPR 2020)."""

    implies: ClassVar[Mapping[str, object]] = {"model": {"new_classifier": "balanced"}}
    name: Literal["mib"]  # type: ignore[assignment]
    distill_weight: Weight = 10.0
    """Factor λ of the unbiased distillation."""
    unbiased: bool = True
    """False takes the plain cross-entropy and distillation instead, for ablation."""


class MbsSettings(LwfSettings):
    """Mitigating background shift (Park et al., ECCV 2024), with the start of new classifiers of SELECT (BMVC 2026)."""

    implies: ClassVar[Mapping[str, object]] = {"model": {"new_classifier": "similar"}}
    name: Literal["mbs"]  # type: ignore[assignment]
    distill_weight: Weight = 25.0
    """Factor of the label-guided distillation of outputs."""
    feature_weight: Weight = 1.0
    """Factor of the adaptive distillation of features."""
    orthogonal_weight: Weight = 1.0
    """Factor of the new classifiers' squared cosines with all others, times the new classes' share of the channels."""
    background: Literal["unbiased", "selective"] = "unbiased"
    """What background means in a new step's labels: background or any old class (MiB's cross-entropy); or what the teacher
    is sure of, ignored where it is in doubt (the paper's selective pseudo-labels)."""
    threshold: Fraction = 0.7
    """The least softmax probability of a selective pseudo-label."""


class PlopSettings(OwnBase):
    """Local POD and entropy-gated pseudo-labels (Douillard et al., CVPR 2021)."""

    trained_with: ClassVar[Activation] = "softmax"
    implies: ClassVar[Mapping[str, object]] = {"model": {"new_classifier": "balanced"}}
    name: Literal["plop"]
    pod_weight: Weight = 0.01
    """Factor of local POD on the backbone's stages."""
    pod_logits_weight: Weight = 0.0005
    """Factor of local POD on the logits."""
    pod_head: bool = False
    """Local POD, at `pod_weight`, on the head's output too, which the classifiers read: the released code has it, the paper not."""
    pod_scales: tuple[PositiveInt, ...] = (1, 2, 4)
    """Into how many windows a side is cut at each scale."""
    gate: Literal["paper", "release"] = "paper"
    """Which predictions become pseudo-labels. paper: those with less than their class's median entropy; release: what the released
    code computes instead, which accepts more (`released_medians`)."""
    least_threshold: Weight = 0.001
    """Lower bound of a class's entropy threshold (its median), as a fraction of the maximum entropy."""


class DkdSettings(OwnBase, OptionalImages):
    """Decomposed knowledge distillation (Baek et al., NeurIPS 2022); DKD-M with a memory."""

    name: Literal["dkd"]
    distill_weight: Weight = 5.0
    """Factor of the distillation of logits."""
    decomposed_weight: Weight = 5.0
    """Factor of the distillation of positive and of negative reasoning scores, each."""
    auxiliary_weight: Weight = 1.0
    """Factor of the auxiliary classifier's loss."""


class SsulSettings(OptionalImages):
    """SSUL (Cha et al., NeurIPS 2021) without the saliency detector: frozen features, an unknown class; SSUL-M with a memory."""

    implies: ClassVar[Mapping[str, object]] = {"model": {"new_classifier": "unknown", "unknown_class": True}}
    learns_unknown_class: ClassVar[bool] = True
    name: Literal["ssul"]
    threshold: Fraction = 0.7
    """The least sigmoid of a pseudo-label."""


class StarSettings(MethodSettings):
    """Prototype replay (Chen et al., NeurIPS 2023)."""

    implies: ClassVar[Mapping[str, object]] = {"model": {"new_classifier": "random"}}
    in_parts: ClassVar[bool] = False
    name: Literal["star"]
    maintain_weight: Weight = 5.0
    """Factor of what holds old classes' features (STAR's OCFM)."""
    discriminate_weight: Weight = 0.05
    """Factor of what keeps new classes' features from old ones (STAR's SAD)."""
    teacher_logit: float = 0.0
    """In training the teacher predicts a class where its logit exceeds this: 0, as in evaluation; STAR's released code takes 0.5."""
    shared_background: Fraction = 0.5
    """The fraction of this step's background cells assumed to be counted by earlier steps already."""

    @property
    def keeps(self) -> str | None:
        return "prototypes"

    @property
    def memory_options(self) -> Mapping[str, float]:
        return {"shared_background": self.shared_background}


class CogamidSettings(StarSettings):
    """Gaussian mixture replay (CoGaMiD, NeurIPS 2025): STAR's counts and constants, features drawn from mixtures."""

    name: Literal["cogamid"]  # type: ignore[assignment]
    components: PositiveInt = 3
    """Gaussians of a class's mixture."""
    covariance: Literal["full", "diagonal"] = "full"
    """full: 4 C² bytes a Gaussian of C channels; diagonal: 4 C, the channels taken to be independent."""
    fitted_cells: PositiveInt = 5000
    """The most cells of a class that its mixture is fitted to, drawn at random."""
    positive_weight: PositiveFloat | None = 4.0
    """Weight of the positive term of the new classes' binary cross-entropy; none is 1."""
    threshold: Fraction = 0.7
    """The least sigmoid of an old class where features and likelihoods are held."""
    sure: Fraction = 0.7
    """The least sigmoid of a new class that counts as confident."""
    uncertainty_weight: Weight = 0.1
    """Factor of the loss of the new classes' pixels that are not confidently right."""

    @property
    def keeps(self) -> str | None:
        return "mixtures"

    @property
    def memory_options(self) -> Mapping[str, float]:
        own = {"components": self.components, "diagonal": self.covariance == "diagonal", "cells": self.fitted_cells}
        return {**super().memory_options, **own}


DEFAULT_METHOD = "eir"
"""The default method."""

Replaying = EirSettings | EirPlusSettings | ImageReplaySettings | StarSettings | CogamidSettings
Others = DftSettings | LwfSettings | IltSettings | MibSettings | MbsSettings | PlopSettings | DkdSettings | SsulSettings
AnyMethod = FinetuneSettings | Replaying | Others

MethodConfig = Annotated[AnyMethod, Field(discriminator="name")]


def method_settings(name: object) -> type[MethodSettings] | None:
    """The settings that a `method.name` names; None for an unknown one."""
    return next((s for s in get_args(AnyMethod) if name in get_args(s.model_fields["name"].annotation)), None)
