"""Mixing pastes into images and labels (methods/README.md §5.4), batched, on one device.

Nothing synchronises with the device, unless the instances are in host memory: then those of a batch are copied first.
"""

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d

from eircli.common.types import BACKGROUND, IGNORE, SoftLabels
from eircli.memory.decoded import Instances
from eircli.memory.replay import Draws, Pastes


def fuse(
    images: UInt8[Tensor, "n 3 h w"] | Float[Tensor, "n 3 h w"],
    labels: UInt8[Tensor, "n h w"],
    instances: Instances,
    pastes: Pastes,
    draws: Draws,
    side: int,
    spared: Bool[Tensor, "n h w"] | None = None,
    feather: int = 0,
) -> tuple[Float[Tensor, "n 3 h w"], SoftLabels]:
    """Mix the instances into images and labels, inside their masks, one after the other (methods/README.md §5.4).

    Each instance is scaled by the one factor that fits its box, with a margin of a pixel, into its slot (nearest
    neighbour), and laid at the slot's corner. A random scale before that would cancel in the fit, so the only
    augmentation is the flip: aspect and outline stay as stored. x ← λ·instance + (1-λ)·x, and so for the soft labels. Ignored
    pixels stay ignored. Instances in host memory are copied first (`fetch`).

    Args:
        spared: the pixels that no paste covers; None: pastes may cover all.
        feather: inside its rim a paste fades: a pixel's share is that of its mask in the square of this radius around it.

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
        mask = pixels[:, 3:]
        if feather:
            mask = mask * avg_pool2d(mask, 2 * feather + 1, stride=1, padding=feather)
        share = mask * draws.lam[:, p].view(-1, 1, 1, 1)
        if spared is not None:
            share = share * ~windows(spared, pastes.corner[:, p], side)
        blend(images, pastes.corner[:, p], pixels[:, :3], share)
        blend(weights[:, : p + 1], pastes.corner[:, p], none, share)
        blend(weights[:, p + 1 : p + 2], pastes.corner[:, p], all_of_it, share)
    return images, SoftLabels(channels, weights, valid)


def windows(maps: Bool[Tensor, "n h w"], corner: Int[Tensor, "n 2"], side: int) -> Bool[Tensor, "n 1 side side"]:
    """The window of every map at its corner."""
    here = torch.arange(side, device=maps.device)
    image = torch.arange(len(maps), device=maps.device).view(-1, 1, 1)
    row, column = ((corner[:, axis].view(-1, 1) + here) for axis in (0, 1))
    return maps[image, row.unsqueeze(2), column.unsqueeze(1)].unsqueeze(1)


def blend_views(maps: Tensor, corner: Tensor, target: Tensor, share: Tensor) -> None:
    """Mix a target into one window of every map: window ← window + share · (target - window), in place.

    Image after image, on views: for the CPU, where reading a corner does not synchronise.

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
    """`blend_views` for all images at once by gather and scatter: for CUDA, where reading a corner would synchronise.

    Args:
        maps: [N, C, H, W]; corner: int64 [N, 2]; target: [N, C, side, side] or []; share: [N, 1, side, side].
    """
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
    """The p-th paste of every image, scaled into its slot: red, green, blue, and 1 inside its mask; 0 elsewhere."""
    chosen, here = pastes.instance[:, p], torch.arange(side, device=pastes.instance.device)
    height, width = (measure[chosen].view(-1, 1) for measure in (instances.height, instances.width))
    factor = torch.minimum(side / (height + 2).double(), side / (width + 2).double())
    factor = torch.minimum(factor, draws.scale[:, p].view(-1, 1))
    new_height, new_width = ((measure * factor + 0.5).long().clamp(min=1) for measure in (height, width))
    row = (((2 * here + 1) * height) // (2 * new_height)).minimum(height - 1)
    column = (((2 * here + 1) * width) // (2 * new_width)).minimum(width - 1)
    column = torch.where(draws.flip[:, p].view(-1, 1), width - 1 - column, column)
    inside = (here < new_height).unsqueeze(2) & (here < new_width).unsqueeze(1) & pastes.active[:, p].view(-1, 1, 1)
    at = (instances.start[chosen].view(-1, 1) + row * width).unsqueeze(2) + column.unsqueeze(1)
    # The four bytes of a pixel are gathered as one int32.
    found = instances.pixels.view(torch.int32).view(-1).index_select(0, at.view(-1))
    laid = torch.where(inside.view(-1), found, 0).view(torch.uint8).view(len(chosen), side, side, 4)
    return laid.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)


def fetch(instances: Instances, pastes: Pastes) -> tuple[Instances, Pastes]:
    """Copy the instances that a batch pastes from host memory to the device: one synchronisation, one transfer.

    Returns:
        The instances on the device, one per paste in order; and the pastes, indexing them.
    """
    device, chosen = pastes.instance.device, pastes.instance.flatten()
    # An inactive paste still indexes an instance: one pixel is copied, so that its index is valid.
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
