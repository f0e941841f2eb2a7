"""Enhanced instance replay as pure tensor functions (methods/README.md §5.1-5.4): what goes where, and how it is mixed in.

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

from eircli.common.types import BACKGROUND, IGNORE, SoftLabels, UInt8Array
from eircli.memory.bank import Bank

Fillers = Literal["best-slot", "spread", "none"]


class Instances(NamedTuple):
    """A bank decoded into memory: all instances' pixels end to end, ordered by channel."""

    pixels: UInt8[Tensor, "total 4"]
    """Red, green, blue, and 1 inside the mask; may lie in the host's memory, while the tables are always on the device."""
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
        device_bytes: what the pixels may take of the device's memory; if they need more, they stay in the host's.
    """
    channels = table[bank.index["class_id"]]
    order = np.argsort(channels, kind="stable")
    top, left, bottom, right = torch.from_numpy(bank.index["box"][order].astype(np.int64)).unbind(1)
    height, width, area = bottom - top, right - left, (bottom - top) * (right - left)
    start, total = area.cumsum(0) - area, int(area.sum())
    home = device if 4 * total <= device_bytes else torch.device("cpu")
    pixels = torch.empty(total, 4, dtype=torch.uint8, device=home)
    for position, begin, count in zip(order.tolist(), start.tolist(), area.tolist(), strict=True):
        instance = bank.load(position)
        pixels[begin : begin + count] = torch.from_numpy(np.dstack([instance.image, instance.mask])).view(-1, 4)
    stock = torch.from_numpy(np.bincount(channels, minlength=old + 1))
    tables = (start, height, width, stock.cumsum(0) - stock, stock, stock.nonzero().flatten())
    return Instances(pixels, *(table.to(device) for table in tables))


def fetch(instances: Instances, pastes: Pastes) -> tuple[Instances, Pastes]:
    """The pastes' own instances alone, all on the pastes' device, one per paste in order; and the pastes that mean them.

    The device is asked once which they are, and gets them in one transfer.
    """
    device, chosen = pastes.instance.device, pastes.instance.flatten()
    # Of what is not pasted one pixel is enough: nobody looks at it, but it must be there.
    height, width = (torch.where(pastes.active.flatten(), size[chosen], 1) for size in (instances.height, instances.width))
    area = height * width
    spans = [slice(start, start + count) for start, count in torch.stack([instances.start[chosen], area], dim=1).tolist()]
    total = sum(span.stop - span.start for span in spans)
    staged = torch.empty(total, 4, dtype=torch.uint8, pin_memory=device.type == "cuda")
    torch.cat([instances.pixels[span] for span in spans], out=staged)
    fetched = instances._replace(
        pixels=staged.to(device, non_blocking=True), start=area.cumsum(0) - area, height=height, width=width
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
    # One count of both kinds of pixels: a channel's pseudo-labelled ones are counted 256 places on.
    counts = torch.zeros(len(labels), 2 * 256, dtype=torch.int32, device=labels.device)
    place = combined.long().add_(pseudo, alpha=256).flatten(1)
    counts.scatter_add_(1, place, counts.new_ones(()).expand_as(place))
    area = torch.where(counts[:, : old + 1] > 0, 0, counts[:, 256 : 257 + old])
    ordered, channels = area.sort(dim=1, descending=True, stable=True)
    channels = torch.where(ordered > 0, channels, BACKGROUND)[:, :limit]
    return torch.nn.functional.pad(channels, (0, limit - channels.shape[1]))


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
    images: UInt8[Tensor, "n 3 h w"] | Float[Tensor, "n 3 h w"],
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
    valid = labels != IGNORE
    known = torch.where(valid, labels, BACKGROUND).unsqueeze(1)
    height, width = labels.shape[1:]
    channels = torch.cat([known, pastes.channel.to(torch.uint8)[:, :, None, None].expand(-1, -1, height, width)], dim=1)
    weights = torch.zeros(channels.shape, device=images.device, dtype=draws.lam.dtype)
    weights[:, 0] = 1
    images = images.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    none, all_of_it = weights.new_zeros(()), weights.new_ones(())
    blend = blend_views if images.device.type == "cpu" else blend_gathered
    for p in range(pastes.active.shape[1]):
        pixels = _scaled(instances, pastes, draws, p, side)
        share = pixels[:, 3:] * draws.lam[:, p].view(-1, 1, 1, 1)
        blend(images, pastes.corner[:, p], pixels[:, :3], share)
        blend(weights[:, : p + 1], pastes.corner[:, p], none, share)
        blend(weights[:, p + 1 : p + 2], pastes.corner[:, p], all_of_it, share)
    return images, SoftLabels(channels, weights, valid)


def blend_views(maps: Tensor, corner: Tensor, target: Tensor, share: Tensor) -> None:
    """Mix a target into one window of every map: window ← window + share · (target - window), in place.

    Image after image: on the CPU a window is a view, and asking for its corner costs nothing.

    Args:
        maps: [N, C, H, W].
        corner: int64 [N, 2], top and left of the windows.
        target: [N, C, side, side], or [] for the same everywhere.
        share: [N, 1, side, side].
    """
    share, side = share.to(maps.dtype), share.shape[-1]
    for n, (top, left) in enumerate(corner.tolist()):
        window = maps[n, :, top : top + side, left : left + side]
        window.lerp_(target[n] if target.ndim else target, share[n])


def blend_gathered(maps: Tensor, corner: Tensor, target: Tensor, share: Tensor) -> None:
    """The same for all images at once, without asking the device where the corners are."""
    share, side = share.to(maps.dtype), share.shape[-1]
    here = torch.arange(side, device=maps.device)
    top, left = corner.unbind(1)
    slot = (here.view(-1, 1) * maps.shape[3] + here).view(1, 1, -1)
    place = (top * maps.shape[3] + left).view(-1, 1, 1) + slot
    place = place.expand(-1, maps.shape[1], -1)
    planes = maps.view(*maps.shape[:2], -1)
    windows = planes.gather(2, place).view(len(maps), -1, side, side)
    planes.scatter_(2, place, windows.lerp(target, share).flatten(2))


def _scaled(instances: Instances, pastes: Pastes, draws: Draws, p: int, side: int) -> Float[Tensor, "n 4 side side"]:
    """Paste p of every image, scaled into its slot: red, green, blue, and 1 inside its mask."""
    chosen, here = pastes.instance[:, p], torch.arange(side, device=pastes.instance.device)
    height, width = (measure[chosen].view(-1, 1) for measure in (instances.height, instances.width))
    factor = torch.minimum(side / (height + 2).double(), side / (width + 2).double())
    new_height, new_width = ((measure * factor + 0.5).long().clamp(min=1) for measure in (height, width))
    row = (((2 * here + 1) * height) // (2 * new_height)).minimum(height - 1)
    column = (((2 * here + 1) * width) // (2 * new_width)).minimum(width - 1)
    column = torch.where(draws.flip[:, p].view(-1, 1), width - 1 - column, column)
    inside = (here < new_height).unsqueeze(2) & (here < new_width).unsqueeze(1) & pastes.active[:, p].view(-1, 1, 1)
    at = (instances.start[chosen].view(-1, 1) + row * width).unsqueeze(2) + column.unsqueeze(1)
    # A pixel's four bytes move as one number.
    found = instances.pixels.view(torch.int32).view(-1).index_select(0, at.view(-1))
    laid = torch.where(inside.view(-1), found, 0).view(torch.uint8).view(len(chosen), side, side, 4)
    return laid.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
