"""Reference implementations of what the fast paths compute, for comparison and for tests."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from eircli.common.types import BACKGROUND, IGNORE
from eircli.memory.decoded import Instances
from eircli.memory.replay import Draws, Pastes
from eircli.model.deeplab import upsample


def plain_predict(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """`predict` of logits [N, K, h, w] upsampled whole to `size` (H, W): channels uint8 [N, H, W]."""
    best, channel = upsample(logits, size)[:, 1:].max(dim=1)
    return torch.where(best > 0, channel + 1, BACKGROUND).to(torch.uint8)


def plain_fuse(
    images: Tensor, labels: Tensor, instances: Instances, pastes: Pastes, draws: Draws, side: int, channels: int
) -> tuple[Tensor, Tensor]:
    """`fusion.fuse` image by image and paste by paste, with dense soft labels float [N, K, H, W]; ignored pixels are all 0."""
    images = images.to(torch.float32, copy=True)
    known = torch.where(labels == IGNORE, BACKGROUND, labels).long()
    soft = one_hot(known, channels).permute(0, 3, 1, 2).float() * (labels != IGNORE).unsqueeze(1)
    for n in range(len(images)):
        for p in range(pastes.active.shape[1]):
            if not pastes.active[n, p]:
                continue
            mask, pixels = _fitted(instances, int(pastes.instance[n, p]), bool(draws.flip[n, p]), side)
            top, left = (int(corner) for corner in pastes.corner[n, p])
            window = (..., slice(top, top + mask.shape[0]), slice(left, left + mask.shape[1]))
            lam = float(draws.lam[n, p]) * mask
            images[n][window] = lam * pixels + (1 - lam) * images[n][window]
            of_paste = one_hot(pastes.channel[n, p].long(), channels).float().view(-1, 1, 1)
            there = (labels[n][window] != IGNORE).float()
            soft[n][window] = lam * there * of_paste + (1 - lam) * soft[n][window]
    return images, soft


def _fitted(instances: Instances, which: int, flipped: bool, side: int) -> tuple[Tensor, Tensor]:
    """An instance's mask, float [h, w], and pixels, float [3, h, w], scaled to fit a slot with a margin of a pixel."""
    height, width, start = (int(column[which]) for column in (instances.height, instances.width, instances.start))
    cut = instances.pixels[start : start + height * width].view(height, width, 4).permute(2, 0, 1).float()
    pixels, mask = cut[:3], cut[3]
    factor = min(side / (height + 2), side / (width + 2))
    tall, wide = (max(1, int(size * factor + 0.5)) for size in (height, width))
    rows = ((2 * torch.arange(tall) + 1) * height) // (2 * tall)
    columns = ((2 * torch.arange(wide) + 1) * width) // (2 * wide)
    if flipped:
        columns = width - 1 - columns
    return mask[rows][:, columns], pixels[:, rows][:, :, columns]
