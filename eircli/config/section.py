"""Base class and field types of the manifest's sections, and what methods' settings share and declare.

What a method keeps between steps and how its predictions are read stand in its settings too, so that commands which train
nothing need no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, lt=1)]
Cache = Literal["none", "ram", "disk"]
Activation = Literal["sigmoid", "softmax"]


class Section(BaseModel):
    """A part of the manifest: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, given: object) -> object:
        """Refuse yes and no for a number, which they would be read as 1 and 0 for."""
        if isinstance(given, Mapping):
            for name, value in given.items():
                field = cls.model_fields.get(name)
                if isinstance(value, bool) and field is not None and "bool" not in repr(field.annotation):
                    raise ValueError(f"{name}: {'true' if value else 'false'} is no value for it")
        return given


class MethodSettings(Section):
    """Settings common to all methods."""

    trained_with: ClassVar[Activation] = "sigmoid"
    """The activation of the method's classification loss, and so how its logits become predictions."""
    implies: ClassVar[Mapping[str, object]] = {}
    """Defaults that selecting the method sets in other sections; a recipe's own settings override them."""
    in_parts: ClassVar[bool] = True
    """Whether a batch's loss is the mean of its micro-batches' losses (needed for accumulation and DDP)."""
    learns_unknown_class: ClassVar[bool] = False
    """Whether the method trains the classifier of the unknown class: neither a class nor background (`model.unknown_class`)."""
    leaves_state: ClassVar[bool] = False
    """Whether the method, at a step's end (the base step's too), hands a state to its next step (`Method.end`)."""

    positive_weight: PositiveFloat | None = None
    """Weight of the positive term of the binary cross-entropy in the steps after the base step; none is 1."""
    base_positive_weight: PositiveFloat | None = None
    """The same in the base step. No method implies one for a shared base step, which would then be shared no more."""
    base_step: Literal["shared"] = "shared"
    """The base step is the same for all methods: binary cross-entropy against its labels."""

    @property
    def keeps(self) -> str | None:
        """The kind of memory (a name in `MEMORY_KINDS`) that the method keeps of old classes; None if none."""
        return None

    @property
    def replays_samples(self) -> bool:
        """Whether the memory's exemplars, if its kind has any, are also training samples."""
        return True

    @property
    def reads_memory(self) -> bool:
        """Whether the method itself reads the memory in training (`Context.memory`), beside the samples that it gives."""
        return self.keeps is not None

    @property
    def largest_replay_share(self) -> float | None:
        """The largest share of a pass that replayed samples make up; None: all of them, each once."""
        return None

    @property
    def own_paste_chance(self) -> float:
        """The chance that a sample gets the new classes' objects of another of the step's images."""
        return 0.0

    @property
    def memory_options(self) -> Mapping[str, float]:
        """Method settings that parameterise building the memory, beside the section `memory`."""
        return {}

    @property
    def reserves_channels(self) -> bool:
        """Whether the classes of later steps have their classifiers from the base step on."""
        return False

    @property
    def slot_side(self) -> int | None:
        """Side of the slots that must fit into the crop, pixels; None without slots."""
        return None

    def positive_weight_at(self, *, base: bool) -> float | None:
        """Weight of the positive term in the base step, or in the steps after it; None is 1."""
        return self.base_positive_weight if base else self.positive_weight

    def activation(self, step: int) -> Activation:
        """How the logits of a step's model become predictions."""
        return "sigmoid" if step == 0 and self.base_step == "shared" else self.trained_with


class OwnBase(MethodSettings):
    """A method whose paper trains the base step with another loss."""

    base_step: Literal["shared", "own"] = "shared"  # type: ignore[assignment]
    """shared: the base step that all methods start from; own: with this method's classification loss, as in its paper."""


class ExemplarReplay(MethodSettings):
    """A method that trains on exemplars of old classes."""

    threshold: Fraction = 0.7
    """The least sigmoid of a pseudo-label."""
    thresholds: Literal["fixed", "median"] = "fixed"
    """fixed: `threshold` for every class; median: for each class the median of the sigmoids with which the old model sees it in the
    step's images, if that is less (as PLOP's gate does with entropies)."""
    replay_share: PositiveFraction | None = None
    """The largest share of a pass that stored exemplars make up, as samples of their own, drawn anew for every pass; none: all of
    them, each once."""
    own_pastes: Fraction = 0.0
    """Chance that a sample gets the new classes' objects of another of the step's images, at their place: this costs no memory."""

    @property
    def largest_replay_share(self) -> float | None:
        return self.replay_share

    @property
    def own_paste_chance(self) -> float:
        return self.own_pastes


class OptionalImages(MethodSettings):
    """A method that its paper has with and without a memory."""

    memory: bool = False
    """Store whole images."""

    @property
    def keeps(self) -> str | None:
        return "images" if self.memory else None


class Distill(Section):
    """Distillation of the old model: which, its weight and its region."""

    loss: Literal["rskd", "decomposed"] = "rskd"
    """rskd: region-specific distillation, and binary cross-entropy against labels and pseudo-labels for all channels (the paper);
    decomposed: the old channels learn from labels only where an exemplar gives them, and imitate the old model elsewhere."""
    weight: Weight = 5.0
    """Factor of the distillation, or imitation, loss; 0 switches it off."""
    reasoning_weight: Weight = 5.0
    """decomposed: factor of the imitation of positive and of negative reasoning scores (DKD), each."""
    extents: bool = False
    """decomposed: outside its labels a replayed sample's own classes are imitated as absent, whatever the old model says."""
    region: Literal["outside-new", "inside-new", "all", "none"] = "outside-new"
    """Distilled pixels: those without a new class's label before fusion, those with one, all, or none (never ignored ones)."""

    @model_validator(mode="after")
    def _settings_agree(self) -> Distill:
        if self.extents and self.loss != "decomposed":
            raise ValueError("extents is of loss: decomposed")
        return self

    @property
    def is_on(self) -> bool:
        return self.loss == "decomposed" or (self.weight > 0 and self.region != "none")
