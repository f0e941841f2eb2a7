"""A small residual network at output stride 4, for small images: about 250k parameters with its head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eircli.model.backbones.base import Backbone


def build(name: str) -> Backbone:
    """The network; `name` is unused."""
    return TinyBackbone()


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv_bn_relu(channels_in, channels, stride, dilation),
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(channels),
        )
        same = stride == 1 and channels_in == channels
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
        )

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.body(features) + self.shortcut(features))


class TinyBackbone(Backbone):
    """A small residual network for small images; its last stage has 64 channels at H/4 × W/4, dilated."""

    channels, stride = 64, 4
    block_types = (ResidualBlock,)

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv_bn_relu(3, 24, stride=2)
        self.stages = nn.Sequential(
            ResidualBlock(24, 24), ResidualBlock(24, 48, stride=2), ResidualBlock(48, 48), ResidualBlock(48, 64, dilation=2)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps, stages = self.stem(images), []
        for stage in self.stages:
            maps = stage(maps)
            stages.append(maps)
        return stages


def _conv_bn_relu(channels_in: int, channels: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels, 3, stride, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())
