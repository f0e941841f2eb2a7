"""Augmentation of image and label together."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import RandomResizedCrop

from eircli.common.types import Sample
from eircli.config.manifest import Data
from eircli.data.resize import resize_short_side


class TrainTransform:
    """Random resized crop and horizontal flip (methods/README.md §6). Draws from torch's global generator: see `training_set`.

    Draws and pixels are those of torchvision's `RandomResizedCrop` (bilinear with antialiasing; labels `nearest-exact`) and
    `RandomHorizontalFlip`, with fewer passes over the pixels.
    """

    def __init__(self, config: Data) -> None:
        self.side, self.flip = config.crop_size, config.flip
        self.scale, self.ratio = list(config.scale), list(config.ratio)

    def __call__(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """uint8 [3, S, S] image and uint8 [S, S] label."""
        label = sample.label
        top, left, height, width = RandomResizedCrop.get_params(torch.from_numpy(label), self.scale, self.ratio)
        flipped = bool(torch.rand(1) < self.flip)
        # Contiguous channels_last, for which torch's uint8 antialiased resizing is twice as fast.
        pixels = torch.from_numpy(sample.image[None, top : top + height, left : left + width].copy()).permute(0, 3, 1, 2)
        image = interpolate(pixels, (self.side, self.side), mode="bilinear", antialias=True)[0].contiguous()
        rows, columns = (_nearest(size, self.side) for size in (height, width))
        label = label[top : top + height].take(left + (columns[::-1] if flipped else columns), axis=1)[rows]
        return image.flip(2) if flipped else image, torch.from_numpy(label)


def _nearest(size: int, side: int) -> NDArray[np.intp]:
    """Which of `size` pixels lies under the centre of each of `side`: torch's `nearest-exact`, in its float32 arithmetic.

    Plain `nearest` takes the pixel under each one's corner, and so would shift labels half a pixel against their image.
    """
    scale = np.float32(size) / np.float32(side)
    centres = np.arange(side, dtype=np.float32) + np.float32(0.5)
    return np.minimum((centres * scale).astype(np.intp), size - 1)


def to_tensors(sample: Sample) -> tuple[Tensor, Tensor]:
    """uint8 [3, H, W] image and uint8 [H, W] label, unchanged."""
    return torch.from_numpy(sample.image.copy()).permute(2, 0, 1), torch.from_numpy(sample.label.copy())


def paper_crop(sample: Sample, side: int) -> Sample:
    """The evaluation crop: resized to the short side `side` and centre-cropped to a square (methods/README.md §7).

    Size and place are those of torchvision's `Resize` and `CenterCrop`, which rounds halves to even.
    """
    image, label = resize_short_side(sample, side)
    top, left = (round((size - side) / 2) for size in label.shape)
    window = (slice(top, top + side), slice(left, left + side))
    return Sample(image[window], label[window])
