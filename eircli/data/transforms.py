"""Augmentation of image and label together, by torchvision.transforms.v2."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from eircli.data.step_view import resize_short_side
from eircli.manifest import Data
from eircli.types import Sample


class TrainTransform:
    """Random resized crop and horizontal flip (method §6). Draws from torch's global generator: see `training_set`."""

    def __init__(self, config: Data) -> None:
        crop = v2.RandomResizedCrop(config.crop_size, config.scale, config.ratio, InterpolationMode.BILINEAR, antialias=True)
        self.transform = v2.Compose([crop, v2.RandomHorizontalFlip(config.flip)])

    def __call__(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """uint8 [3, S, S] image and uint8 [S, S] label."""
        image = tv_tensors.Image(torch.from_numpy(sample.image).permute(2, 0, 1))
        label = tv_tensors.Mask(torch.from_numpy(sample.label))
        image, label = self.transform(image, label)
        return image.as_subclass(Tensor), label.as_subclass(Tensor)


def to_tensors(sample: Sample) -> tuple[Tensor, Tensor]:
    """uint8 [3, H, W] image and uint8 [H, W] label, unchanged."""
    return torch.from_numpy(sample.image.copy()).permute(2, 0, 1), torch.from_numpy(sample.label.copy())


def paper_crop(sample: Sample, side: int) -> Sample:
    """Resized to the short side `side` and centre-cropped to a square (method §7)."""
    image, label = resize_short_side(sample, side)
    top, left = (label.shape[0] - side) // 2, (label.shape[1] - side) // 2
    window = (slice(top, top + side), slice(left, left + side))
    return Sample(image[window], label[window])
