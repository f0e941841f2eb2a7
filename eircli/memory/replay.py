"""Enhanced instance replay as pure tensor functions (method §5.1-5.4): what goes where, and how it is mixed in.

Everything is batched and stays on one device, and nothing waits for the device, unless the bank is too large for it: then
each batch's instances are fetched. Randomness comes in as numbers drawn beforehand (`draw`), so that the same draws give the
same images on any device.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from eircli.memory.bank import Bank
from eircli.types import BACKGROUND, IGNORE, SoftLabels, UInt8Array

Fillers = Literal["best-slot", "spread", "none"]


class Instances(NamedTuple):
    """A bank decoded into memory: all instances' pixels end to end, ordered by channel.

    `pixels` and `masks` may lie in the host's memory; the tables are always on the device.
    """

    pixels: UInt8[Tensor, "total 3"]
    masks: Bool[Tensor, " total"]
    start: Int[Tensor, " count"]
    """Where an instance's pixels begin; they follow row by row."""
    height: Int[Tensor, " count"]
    width: Int[Tensor, " count"]
    first: Int[Tensor, " channels"]
    """The first instance of each channel, background included."""
    stock: Int[Tensor, " channels"]
    """How many instances each channel has."""
    stocked: Int[Tensor, " stocked"]
    """The channels that have any."""


class Draws(NamedTuple):
    """The random numbers of a batch's pastes, in [0, 1)."""

    instance: Float[Tensor, "n pastes"]
    """Which of its class's instances a paste takes."""
    filler: Float[Tensor, "n pastes"]
    """Which old class a filler takes."""
    flip: Bool[Tensor, "n pastes"]
    lam: Float[Tensor, "n pastes"]
    """Weight λ of the instance."""

    def to(self, device: torch.device) -> "Draws":
        """The same on a device."""
        return Draws(*(_send(draw, device) for draw in self))


class Pastes(NamedTuple):
    """What is pasted, in order; pastes that are not `active` do nothing."""

    active: Bool[Tensor, "n pastes"]
    channel: Int[Tensor, "n pastes"]
    instance: Int[Tensor, "n pastes"]
    corner: Int[Tensor, "n pastes 2"]
    """Top and left of the slot."""


def decode(bank: Bank, table: UInt8Array, old: int, device: torch.device, device_bytes: float = math.inf) -> Instances:
    """Decode a whole bank for the channels 0..`old`, one instance at a time.

    Args:
        table: uint8 [256], maps class ids to channels.
        device_bytes: what pixels and masks may take of the device's memory; if they need more, they stay in the host's.
    """
    channels = table[bank.index["class_id"]]
    order = np.argsort(channels, kind="stable")
    top, left, bottom, right = torch.from_numpy(bank.index["box"][order].astype(np.int64)).unbind(1)
    height, width, area = bottom - top, right - left, (bottom - top) * (right - left)
    start, total = area.cumsum(0) - area, int(area.sum())
    home = device if 4 * total <= device_bytes else torch.device("cpu")
    pixels = torch.empty(total, 3, dtype=torch.uint8, device=home)
    masks = torch.empty(total, dtype=torch.bool, device=home)
    for position, begin, count in zip(order.tolist(), start.tolist(), area.tolist(), strict=True):
        instance = bank.load(position)
        pixels[begin : begin + count] = torch.from_numpy(instance.image).view(-1, 3)
        masks[begin : begin + count] = torch.from_numpy(instance.mask).view(-1)
    stock = torch.from_numpy(np.bincount(channels, minlength=old + 1))
    tables = (start, height, width, stock.cumsum(0) - stock, stock, stock.nonzero().flatten())
    return Instances(pixels, masks, *(table.to(device) for table in tables))


def fetch(instances: Instances, pastes: Pastes) -> tuple[Instances, Pastes]:
    """The pastes' own instances alone, all on the pastes' device, one per paste in order; and the pastes that mean them.

    The device is asked once which they are, and gets them in one transfer.
    """
    device, chosen = pastes.instance.device, pastes.instance.flatten()
    height, width = instances.height[chosen], instances.width[chosen]
    # Of what is not pasted one pixel is enough: nobody looks at it, but it must be there.
    area = torch.where(pastes.active.flatten(), height * width, 1)
    spans = [slice(start, start + count) for start, count in torch.stack([instances.start[chosen], area], dim=1).tolist()]
    total = sum(span.stop - span.start for span in spans)
    staged = torch.empty(4 * total, dtype=torch.uint8, pin_memory=device.type == "cuda")
    torch.cat([instances.pixels[span] for span in spans], out=staged[: 3 * total].view(total, 3))
    torch.cat([instances.masks[span] for span in spans], out=staged[3 * total :].view(torch.bool))
    staged = staged.to(device, non_blocking=True)
    fetched = instances._replace(
        pixels=staged[: 3 * total].view(total, 3),
        masks=staged[3 * total :].view(torch.bool),
        start=area.cumsum(0) - area,
        height=height,
        width=width,
    )
    return fetched, pastes._replace(instance=torch.arange(len(chosen), device=device).view_as(pastes.instance))


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host's on a device. Only from page-locked memory does a copy to a GPU not wait for the GPU."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def draw(generator: np.random.Generator, n: int, pastes: int, flip: float, beta: tuple[float, float] | None) -> Draws:
    """The random numbers of `n` images' pastes; λ ~ Beta(`beta`), or 1 if None (hard paste)."""
    instance, filler, coin = (torch.from_numpy(generator.random((n, pastes))) for _ in range(3))
    lam = torch.ones(n, pastes) if beta is None else torch.from_numpy(generator.beta(*beta, (n, pastes))).float()
    return Draws(instance, filler, coin < flip, lam)


def pseudo_labels(
    labels: UInt8[Tensor, "n h w"], best: Float[Tensor, "n h w"], channel: UInt8[Tensor, "n h w"], threshold: float
) -> UInt8[Tensor, "n h w"]:
    """Labels completed with the old model's best channel, where background's, a class's, and confident (§5.1).

    Args:
        best, channel: the old model's greatest logit, and whose it is.
    """
    confident = (labels == BACKGROUND) & (channel != BACKGROUND) & (torch.sigmoid(best) >= threshold)
    return torch.where(confident, channel, labels)


def potential_classes(
    labels: UInt8[Tensor, "n h w"], combined: UInt8[Tensor, "n h w"], old: int, limit: int
) -> Int[Tensor, "n limit"]:
    """Each image's pseudo-labelled channels that are not among its labels, largest area first, then 0s (§5.2)."""
    pseudo = (labels == BACKGROUND) & (combined != BACKGROUND)
    area = _count(combined, pseudo)[:, : old + 1]
    area[_count(labels, labels != IGNORE)[:, : old + 1] > 0] = 0
    ordered, channels = area.sort(dim=1, descending=True, stable=True)
    channels = torch.where(ordered > 0, channels, BACKGROUND)[:, :limit]
    return torch.nn.functional.pad(channels, (0, limit - channels.shape[1]))


def _count(channels: Tensor, where: Tensor) -> Tensor:
    """int64 [N, 256]: pixels of each channel in each image, where `where` holds."""
    zeros = torch.zeros(len(channels), IGNORE + 1, dtype=torch.int64, device=channels.device)
    return zeros.scatter_add_(1, channels.flatten(1).long(), where.flatten(1).long())


def select_slots(combined: UInt8[Tensor, "n h w"], side: int, limit: int) -> Int[Tensor, "n slots 2"]:
    """Top-left corners of the `limit` windows of a grid of `side` with the most background pixels, best first (§5.3)."""
    n, height, width = combined.shape
    rows, columns = height // side, width // side
    free = (combined[:, : rows * side, : columns * side] == BACKGROUND).view(n, rows, side, columns, side)
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
    """Which instance goes where (§5.4): potential class i into slot i, then fillers if there are few.

    Where an image has fewer than `fillers_below` potential classes, instances of random old classes take the
    remaining pastes: all into the best slot, or `spread` over the slots that are still free. A class without an
    instance, or without a slot, is skipped.
    """
    n, pastes = potential.shape
    order = torch.arange(pastes, device=potential.device).expand(n, pastes)
    known = (potential != BACKGROUND).sum(dim=1, keepdim=True)
    is_filler = (order >= known) & (known < fillers_below) & (fillers != "none")
    stocked = instances.stocked
    channel = torch.where(is_filler, stocked[_pick(draws.filler, len(stocked))], potential)
    slot = torch.where(is_filler & (fillers == "best-slot"), 0, order)
    stock = instances.stock[channel]
    active = (channel != BACKGROUND) & (stock > 0) & (slot < slots.shape[1])
    instance = instances.first[channel] + _pick(draws.instance, stock)
    corner = slots.gather(1, slot.clamp(max=slots.shape[1] - 1).unsqueeze(2).expand(-1, -1, 2))
    return Pastes(active, channel, torch.where(active, instance, 0), corner)


def _pick(uniform: Tensor, count: Tensor | int) -> Tensor:
    """A position in 0..count-1 for a number in [0, 1); 0 where there is nothing to pick from."""
    picked = (uniform * count).long()
    return torch.where(picked < count, picked, count - 1).clamp(min=0)


def one_hot(labels: UInt8[Tensor, "n h w"]) -> SoftLabels:
    """Hard labels as soft ones: a single layer of weight 1."""
    valid = labels != IGNORE
    channels = torch.where(valid, labels, BACKGROUND).unsqueeze(1)
    return SoftLabels(channels, torch.ones(channels.shape, device=labels.device), valid)


def fuse(
    images: Float[Tensor, "n 3 h w"],
    labels: UInt8[Tensor, "n h w"],
    instances: Instances,
    pastes: Pastes,
    draws: Draws,
    side: int,
) -> tuple[Float[Tensor, "n 3 h w"], SoftLabels]:
    """Mix the instances into images and labels, inside their masks, one after the other (§5.4).

    Each instance is scaled by the one factor that fits its box, with a margin of a pixel, into its slot (nearest
    neighbour), and laid at the slot's corner. A random scale before that would cancel in the fit, so the only
    augmentation left is the flip. x ← λ·instance + (1-λ)·x, and so for the soft labels. Ignored pixels stay ignored.
    Instances that lie in the host's memory are fetched first.

    Returns:
        The mixed images and soft labels of 1 + pastes layers.
    """
    if instances.pixels.device != images.device:
        instances, pastes = fetch(instances, pastes)
    images = images.clone()
    first = one_hot(labels)
    layers = 1 + pastes.active.shape[1]
    channels = first.channels.repeat(1, layers, 1, 1)
    weights = torch.zeros(channels.shape, device=images.device, dtype=draws.lam.dtype)
    weights[:, 0] = 1
    here = torch.arange(side, device=images.device)
    batch = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    for p in range(layers - 1):
        rows, columns, mask, pixels = _scaled(instances, pastes, draws, p, here)
        lam = draws.lam[:, p].view(-1, 1, 1)
        rate = torch.where(mask, lam, 0)
        window = images[batch, :, rows, columns]
        images[batch, :, rows, columns] = window + rate.unsqueeze(3) * (pixels - window)
        weights[batch, : p + 1, rows, columns] *= (1 - rate).unsqueeze(3)
        weights[batch, p + 1, rows, columns] = rate
        channels[batch, p + 1, rows, columns] = pastes.channel[:, p].view(-1, 1, 1).to(torch.uint8)
    return images, SoftLabels(channels, weights, first.valid)


def _scaled(instances: Instances, pastes: Pastes, draws: Draws, p: int, here: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Paste p of every image, scaled into its slot: image rows and columns, mask, pixels, each [N, side, side, …]."""
    side = len(here)
    chosen = pastes.instance[:, p]
    height, width = (size[chosen].view(-1, 1) for size in (instances.height, instances.width))
    factor = torch.minimum(side / (height + 2).double(), side / (width + 2).double())
    new_height, new_width = ((size * factor + 0.5).long().clamp(min=1) for size in (height, width))
    row = ((2 * here + 1) * height) // (2 * new_height)
    column = ((2 * here + 1) * width) // (2 * new_width)
    column = torch.where(draws.flip[:, p].view(-1, 1), width - 1 - column, column)
    inside = (here < new_height).unsqueeze(2) & (here < new_width).unsqueeze(1) & pastes.active[:, p].view(-1, 1, 1)
    at = instances.start[chosen].view(-1, 1, 1) + row.unsqueeze(2) * width.unsqueeze(2) + column.unsqueeze(1)
    at = torch.where(inside, at, 0)
    corner = pastes.corner[:, p]
    rows, columns = corner[:, 0].view(-1, 1, 1) + here.view(-1, 1), corner[:, 1].view(-1, 1, 1) + here
    return rows, columns, instances.masks[at] & inside, instances.pixels[at].float()
