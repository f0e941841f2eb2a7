"""Types shared by all subpackages: label constants, samples, batches, instances, soft labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Parameter

BACKGROUND = 0
"""Class id and channel of everything that is not (yet) a class."""

IGNORE = 255
"""Label of pixels that are ignored: they enter no loss or distillation per pixel, and no evaluation."""

CANVAS = (124, 116, 104)
"""The ImageNet mean colour in 8 bits: what is blank to most backbones (`config.backbones.Normalisation.canvas`)."""

Colour = tuple[int, int, int]
"""Red, green, blue in 8 bits."""

UInt8Array = NDArray[np.uint8]
Int32Array = NDArray[np.int32]


class Sample(NamedTuple):
    """One image and its labels, in memory."""

    image: UInt8Array
    """uint8 [H, W, 3], RGB."""
    label: UInt8Array
    """uint8 [H, W], class ids or channels; 0 background, 255 ignore."""


class InstanceMap(NamedTuple):
    """The objects that an image's annotation tells apart, as far as they are seen."""

    numbers: Int32Array
    """int32 [H, W]: k + 1 where object k is, 0 where none is."""
    labels: UInt8Array
    """uint8 [objects]: the class id or channel of each; 0 background, 255 ignore."""


class ParameterGroups(NamedTuple):
    """A network's parameters, as an optimizer tells them apart."""

    backbone: list[list[Parameter]]
    """By depth, from the stem to the last block."""
    head: list[Parameter]
    """The head and all but the newest classifier."""
    newest: list[Parameter]
    """The newest classifier."""
    matrices: set[int]
    """The identities of those that are weights of convolutions or linear layers: not norms, biases or embeddings."""


class SampleSource(Protocol):
    """Samples by position: a step's new images, a bank's instances."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Sample: ...


class Split(SampleSource, Protocol):
    """The labelled images of one split of a data set; labels are class ids 0..n and 255."""

    @property
    def ids(self) -> list[str]: ...

    def load(self, index: int, short_side: int | None = None) -> Sample:
        """A sample, its short side resized to `short_side` pixels if given."""
        ...

    def load_label(self, index: int) -> UInt8Array:
        """The label alone, uint8 [H, W], checked: single channel, ids within the classes, the size of its image."""
        ...

    def present(self, index: int) -> list[int]:
        """The class ids, 0 and 255 included, that an image holds.

        Raises:
            UserError: naming the file that is faulty.
        """
        ...

    def fingerprint(self) -> str:
        """A string that changes whenever a file of the split does."""
        ...

    def sample_fingerprint(self, index: int) -> str:
        """A string, unique to the sample, that changes whenever one of its files does."""
        ...


@runtime_checkable
class KnowsInstances(Protocol):
    """A split whose annotations tell objects apart (`DatasetSettings.knows_instances`)."""

    def load_instances(self, index: int) -> InstanceMap:
        """The objects of an image, at its own size; each carries the class id that its pixels have in the label."""
        ...


class DataSet(NamedTuple):
    """A data set: the names of its classes and its two splits."""

    classes: tuple[str, ...]
    """Name of class id k at position k - 1."""
    train: Split
    val: Split
    label_ids: tuple[int, ...] | None = None
    """The ids that the classes have in the label files, where those are not 1, 2, …"""


class Box(NamedTuple):
    """A rectangle of pixels, bottom and right exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of an image [H, W, ...] that it covers."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True)
class Instance:
    """One object cut out of a training image: crop, mask and provenance."""

    image: UInt8Array
    """uint8 [h, w, 3]: the bounding box's pixels, blank outside the mask."""
    mask: NDArray[np.bool_]
    """bool [h, w]."""
    class_id: int
    source: str
    """Id of the image it was cut from."""
    box: Box
    source_size: tuple[int, int]
    """Height and width of that image."""
    step: int
    """The step whose training labels it comes from."""

    @property
    def area(self) -> int:
        """Pixels in the mask."""
        return int(self.mask.sum())


@dataclass(frozen=True)
class StoredImage:
    """One whole training image with the labels it had when it was stored."""

    image: UInt8Array
    """uint8 [H, W, 3]."""
    label: UInt8Array
    """uint8 [H, W], class ids of the step it comes from; 0 and 255."""
    class_id: int
    """The class it was stored for."""
    source: str
    """Id of the image."""
    step: int
    """The step whose training labels it has."""

    @property
    def area(self) -> int:
        """Pixels of the class it was stored for."""
        return int((self.label == self.class_id).sum())


@dataclass(frozen=True)
class FoveatedInstance:
    """One object with its surroundings: sharp in a box around it, its whole image coarse."""

    image: UInt8Array
    """uint8 [h, w, 3]: the pixels of `view`."""
    view: Box
    """What is kept sharp: the box with a ring around it."""
    thumbnail: UInt8Array
    """uint8 [⌈H / shrink⌉, ⌈W / shrink⌉, 3]: the whole image, a pixel for `shrink` x `shrink` of its own."""
    shrink: int
    mask: NDArray[np.bool_]
    """bool [box]: the object."""
    class_id: int
    source: str
    """Id of the image it is in."""
    box: Box
    """The object's bounding box."""
    source_size: tuple[int, int]
    """Height and width of that image."""
    step: int
    """The step whose training labels it comes from."""

    @property
    def area(self) -> int:
        """Pixels in the mask."""
        return int(self.mask.sum())


Exemplar = Instance | StoredImage | FoveatedInstance
"""What a bank holds."""


class SoftLabels(NamedTuple):
    """Sparse soft labels: each pixel's distribution over channels in L layers, of one weighted channel each.

    A channel may occur in several layers; its weights add up. Ignored pixels have no valid target.
    """

    channels: Tensor
    """uint8 [N, L, H, W]."""
    weights: Tensor
    """float32 [N, L, H, W], summing to 1 over L."""
    valid: Tensor
    """bool [N, H, W], False where the label is ignore."""


@dataclass(frozen=True)
class Batch:
    """The input of a training step. The data loader fills the first four fields; a method's `prepare` the rest."""

    images: Tensor
    """uint8 [N, 3, H, W] from the loader, float32 in 0..255 after `prepare`."""
    labels: Tensor
    """uint8 [N, H, W], channels; 0 background, 255 ignore."""
    seed: int
    """Seeds every random draw made for this batch."""
    replayed: Tensor
    """bool [N]: samples that come from the memory."""
    targets: SoftLabels | None = None
    teacher_logits: Tensor | None = None
    """float [N, 1 + old, h, w], at the network's own resolution."""
    region: Tensor | None = None
    """bool [N, H, W]: the pixels that are distilled; [N, h, w] where features are (STAR)."""
    teacher_features: tuple[Tensor, ...] = ()
    """From the teacher's pass: feature maps [N, C, h, w] that a method compares the student's with, or masks [N, h, w] on their grid."""
    part: tuple[int, int] | None = None
    """For a micro-batch or a process's share of a batch: the position of its first image in the whole batch, and the size of that."""
    pixel_count: Tensor | None = None
    """float []: for a part of a batch, the divisor of means over pixels: the whole batch's counted pixels divided by the number of
    parts (`PixelMean`). None: this batch's own counted pixels."""

    def pin_memory(self) -> Batch:
        """The same in page-locked host memory; called by the data loader (`pin_memory=True`)."""
        return self.with_(**{name: getattr(self, name).pin_memory() for name in ("images", "labels", "replayed")})

    def cut(self, rows: slice) -> Batch:
        """The images of some rows, before `prepare`."""
        return self.with_(**{name: getattr(self, name)[rows] for name in ("images", "labels", "replayed")})

    def to(self, device: torch.device, seed: int) -> Batch:
        """The same on a device, with the seed of its random draws."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in ("images", "labels", "replayed")}
        return self.with_(**moved, seed=seed)

    def with_(self, **changes: object) -> Batch:
        """A copy with some fields replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]
