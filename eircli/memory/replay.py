"""Enhanced instance replay as pure tensor functions (methods/README.md §5.1-5.4): pseudo-labels, slots, pastes.

Everything is batched, stays on one device, and does not synchronise with it. Random numbers are arguments, drawn beforehand
(`draw`), so that the same draws give the same images on any device.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from eircli.common.types import BACKGROUND, IGNORE, SoftLabels
from eircli.memory.decoded import Instances

Fillers = Literal["best-slot", "spread", "none"]

Scale = Literal["slot", "native"]


class Draws(NamedTuple):
    """The random numbers of a batch's pastes, in [0, 1)."""

    instance: Float[Tensor, "n pastes"]
    """Which of its class's instances a paste takes."""
    filler: Float[Tensor, "n pastes"]
    """Which old class a filler takes."""
    flip: Bool[Tensor, "n pastes"]
    lam: Float[Tensor, "n pastes"]
    """Weight λ of the instance."""
    scale: Float[Tensor, "n pastes"]
    """The most that an instance grows by; it shrinks further where it would not fit its slot."""

    def to(self, device: torch.device) -> "Draws":
        """The same on a device."""
        return Draws(*(_send(draw, device) for draw in self))


class Pastes(NamedTuple):
    """The pastes of a batch, in order; those that are not `active` change nothing."""

    active: Bool[Tensor, "n pastes"]
    channel: Int[Tensor, "n pastes"]
    instance: Int[Tensor, "n pastes"]
    corner: Int[Tensor, "n pastes 2"]
    """Top and left of the slot."""


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a host tensor to a device without blocking: on CUDA by way of page-locked memory."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def draw(
    generator: np.random.Generator, n: int, pastes: int, flip: float, beta: tuple[float, float] | None, scale: Scale = "slot"
) -> Draws:
    """Draw the random numbers of the pastes of `n` images, [n, pastes] each.

    λ ~ Beta(`beta`), or 1 if None (hard paste). Scaled to the slot, an instance grows by any factor; natively, by one from 1/2 to 1.
    """
    instance, filler, coin = (torch.from_numpy(generator.random((n, pastes))) for _ in range(3))
    lam = torch.ones(n, pastes) if beta is None else torch.from_numpy(generator.beta(*beta, (n, pastes))).float()
    unbounded = torch.full((n, pastes), torch.inf, dtype=torch.float64)
    growth = unbounded if scale == "slot" else torch.from_numpy(generator.uniform(0.5, 1, (n, pastes)))
    return Draws(instance, filler, coin < flip, lam, growth)


def pseudo_labels(
    labels: UInt8[Tensor, "n h w"],
    best: Float[Tensor, "n h w"],
    channel: UInt8[Tensor, "n h w"],
    threshold: float | Float[Tensor, " channels"],
) -> UInt8[Tensor, "n h w"]:
    """Give background pixels the teacher's best channel where it is a class with a sigmoid of at least `threshold` (methods/README.md §5.1).

    Args:
        best, channel: the teacher's greatest logit of every pixel, and its channel.
        threshold: of all classes, or of each channel.

    Returns:
        The labels with pseudo-labels; labelled and ignored pixels as they were.

    Example:
        >>> labels = torch.tensor([[[0, 0, 3]]], dtype=torch.uint8)
        >>> best, channel = torch.tensor([[[2.0, 0.1, 5.0]]]), torch.tensor([[[1, 2, 1]]], dtype=torch.uint8)
        >>> pseudo_labels(labels, best, channel, threshold=0.7)
        tensor([[[1, 0, 3]]], dtype=torch.uint8)
    """
    least = threshold[channel.long()] if isinstance(threshold, Tensor) else threshold
    confident = (labels == BACKGROUND) & (channel != BACKGROUND) & (torch.sigmoid(best) >= least)
    return torch.where(confident, channel, labels)


def potential_classes(
    labels: UInt8[Tensor, "n h w"], combined: UInt8[Tensor, "n h w"], old: int, limit: int
) -> Int[Tensor, "n limit"]:
    """The potential old classes of each image (methods/README.md §5.2).

    Args:
        labels, combined: before and after pseudo-labelling.

    Returns:
        The pseudo-labelled channels that are not among the image's labels, largest area first, filled up with 0.
    """
    pseudo = (labels == BACKGROUND) & (combined != BACKGROUND)
    # One histogram for both kinds of pixels: a channel's pseudo-labelled ones are counted 256 bins further.
    counts = torch.zeros(len(labels), 2 * 256, dtype=torch.int32, device=labels.device)
    place = combined.long().add_(pseudo, alpha=256).flatten(1)
    counts.scatter_add_(1, place, counts.new_ones(()).expand_as(place))
    area = torch.where(counts[:, : old + 1] > 0, 0, counts[:, 256 : 257 + old])
    ordered, channels = area.sort(dim=1, descending=True, stable=True)
    channels = torch.where(ordered > 0, channels, BACKGROUND)[:, :limit]
    return torch.nn.functional.pad(channels, (0, limit - channels.shape[1]))


def select_slots(
    combined: UInt8[Tensor, "n h w"], side: int, limit: int, unseen: Float[Tensor, "n h w"] | None = None
) -> Int[Tensor, "n slots 2"]:
    """The slots of each image (methods/README.md §5.3).

    Args:
        unseen: what a background pixel counts; None: one.

    Returns:
        Top and left of the `limit` windows, of a grid of `side` pixels, with the most background pixels, best first.

    Example:
        >>> combined = torch.zeros(1, 4, 4, dtype=torch.uint8)
        >>> combined[0, :2, :2] = 5
        >>> select_slots(combined, side=2, limit=2)
        tensor([[[0, 2],
                 [2, 0]]])
    """
    n, height, width = combined.shape
    rows, columns = height // side, width // side
    free = combined == BACKGROUND if unseen is None else torch.where(combined == BACKGROUND, unseen, 0)
    free = free[:, : rows * side, : columns * side].reshape(n, rows, side, columns, side)
    windows = free.sum(dim=(2, 4)).flatten(1).argsort(dim=1, descending=True, stable=True)[:, :limit]
    return torch.stack([windows // columns, windows % columns], dim=2) * side


def place(
    potential: Int[Tensor, "n pastes"],
    slots: Int[Tensor, "n slots 2"],
    instances: Instances,
    draws: Draws,
    fillers: Fillers,
    fillers_below: int,
) -> Pastes:
    """Which instance is pasted where (methods/README.md §5.4): potential class i into slot i, then fillers if there are few.

    Where an image has fewer than `fillers_below` potential classes, instances of random old classes take the
    remaining pastes: all into the best slot, or `spread` over the slots that are still free. A class without an
    instance, or without a slot, is skipped.
    """
    n, pastes = potential.shape
    order = torch.arange(pastes, device=potential.device).expand(n, pastes)
    known = (potential != BACKGROUND).sum(dim=1, keepdim=True)
    is_filler = (order >= known) & (known < fillers_below) & (fillers != "none")
    nonempty = instances.nonempty
    channel = torch.where(is_filler, nonempty[_pick(draws.filler, len(nonempty))], potential)
    slot = torch.where(is_filler & (fillers == "best-slot"), 0, order)
    instance_count = instances.instance_count[channel]
    active = (channel != BACKGROUND) & (instance_count > 0) & (slot < slots.shape[1])
    instance = instances.first[channel] + _pick(draws.instance, instance_count)
    corner = slots.gather(1, slot.clamp(max=slots.shape[1] - 1).unsqueeze(2).expand(-1, -1, 2))
    return Pastes(active, channel, torch.where(active, instance, 0), corner)


def _pick(uniform: Tensor, count: Tensor | int) -> Tensor:
    """The position in 0..count-1 that a uniform number in [0, 1) picks; 0 where `count` is 0."""
    picked = (uniform * count).long()
    return torch.where(picked < count, picked, count - 1).clamp(min=0)


def one_hot(labels: UInt8[Tensor, "n h w"]) -> SoftLabels:
    """Hard labels as soft labels of one layer with weight 1.

    Example:
        >>> one_hot(torch.tensor([[[2, 255]]], dtype=torch.uint8)).valid
        tensor([[[ True, False]]])
    """
    valid = labels != IGNORE
    channels = torch.where(valid, labels, BACKGROUND).unsqueeze(1)
    return SoftLabels(channels, torch.ones(channels.shape, device=labels.device), valid)
