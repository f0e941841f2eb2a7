"""Synthetic inputs of given sizes, for measurements that depend on sizes alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eircli.common.types import IGNORE, Batch, SoftLabels
from eircli.data.shapes import draw
from eircli.memory.decoded import Instances

BLOCK = 32
"""Side of the patches of one label, pixels."""


def synthetic_labels(n: int, side: int, channels: list[int], device: torch.device) -> Tensor:
    """uint8 [N, S, S]: patches of background, of the given channels and of ignored pixels."""
    generator = torch.Generator().manual_seed(0)
    patches = -(-side // BLOCK)
    choices = torch.tensor([0, 0, 0, IGNORE, *channels], dtype=torch.uint8)
    picked = choices[torch.randint(len(choices), (n, patches, patches), generator=generator)]
    return picked.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)[:, :side, :side].contiguous().to(device)


def synthetic_batch(n: int, side: int, channels: list[int], device: torch.device) -> Batch:
    """A batch of noise with patches of the given channels as labels."""
    images = torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    replayed = torch.zeros(n, dtype=torch.bool, device=device)
    return Batch(images.to(device), synthetic_labels(n, side, channels, device), seed=0, replayed=replayed)


def synthetic_instances(old: int, per_class: int, side: int, device: torch.device) -> Instances:
    """Square instances of noise, `per_class` of each old channel."""
    count, area = old * per_class, side * side
    generator = torch.Generator().manual_seed(0)
    size = torch.full((count,), side)
    pixels = torch.randint(0, 256, (count * area, 3), generator=generator, dtype=torch.uint8)
    mask = (torch.rand(count * area, 1, generator=generator) < 0.7).to(torch.uint8)
    instance_count = torch.tensor([0, *[per_class] * old])
    instances = Instances(
        pixels=torch.cat([pixels, mask], dim=1),
        start=torch.arange(count) * area,
        height=size,
        width=size,
        first=instance_count.cumsum(0) - instance_count,
        instance_count=instance_count,
        nonempty=torch.arange(1, old + 1),
    )
    return Instances(*(tensor.to(device) for tensor in instances))


class LossInput:
    """Logits at the network's resolution and sparse soft labels at the images', as after three pastes."""

    def __init__(self, n: int, channels: int, side: int, stride: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        new, low, layers = max(1, min(5, channels // 4)), side // stride, 4
        student, teacher = (3 * torch.randn(n, k, low, low, generator=generator) for k in (channels, channels - new))
        kind = torch.uint8 if channels <= 256 else torch.int16
        shown = torch.randint(channels, (n, layers, side, side), generator=generator).to(kind)
        weights = torch.zeros(n, layers, side, side)
        weights[:, 0] = 1
        for layer in range(1, layers):  # half the image under each paste
            rate = torch.rand(1, generator=generator).item() * (torch.rand(n, side, side, generator=generator) < 0.5)
            weights[:, :layer] *= 1 - rate.unsqueeze(1)
            weights[:, layer] = rate
        valid = synthetic_labels(n, side, [1], device) != IGNORE
        self.student = student.to(device).requires_grad_()
        self.teacher = teacher.to(device)
        self.targets = SoftLabels(shown.to(device), weights.to(device), valid)
        self.region = valid & (torch.rand(n, side, side, generator=generator) < 0.8).to(device)


def write_synthetic_images(root: Path, count: int = 8, classes: int = 20) -> None:
    """A folder data set of `count` images of 500×375 pixels in each split: drawn shapes, as JPEG and PNG."""
    (root / "classes.txt").parent.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(f"class {number}" for number in range(1, classes + 1)) + "\n")
    for split in ("training", "validation"):
        for folder in ("images", "annotations"):
            (root / folder / split).mkdir(parents=True)
        for number in range(count):
            image, label = draw(
                500, np.random.default_rng([number, split == "training"]), ([*range(1, 11)], [*range(1, 17)]), 0.5
            )
            label = np.where(label > 0, (label + 5 * number - 1) % classes + 1, 0).astype(np.uint8)
            Image.fromarray(image[:375]).save(root / "images" / split / f"{number}.jpg", quality=90)
            Image.fromarray(label[:375]).save(root / "annotations" / split / f"{number}.png")
