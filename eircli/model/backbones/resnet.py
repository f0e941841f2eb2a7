"""torchvision's ResNets, their last stage dilated to output stride 16 (methods/README.md §2)."""

from __future__ import annotations

from typing import cast

import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from eircli.model.backbones.base import OTHER_PARTS, Backbone
from eircli.model.backbones.torchvision_weights import imagenet_weights

__all__ = ["build", "imagenet_weights"]


def build(name: str) -> Backbone:
    """torchvision's network of that name as a backbone."""
    resnet = getattr(torchvision.models, name)(weights=None)
    dilate(resnet.layer4)
    return ResNetFeatures(resnet)


class ResNetFeatures(Backbone):
    """A ResNet without pooling and classifier; its last stage has C channels at H/16 × W/16."""

    stride = 16
    block_types = (BasicBlock, Bottleneck)
    prefix, ignored_prefixes = "layers.", ("fc.", *OTHER_PARTS)

    def __init__(self, resnet: nn.Module) -> None:
        super().__init__()
        self.channels = cast(nn.Linear, resnet.fc).in_features
        self.layers = nn.Sequential()
        for name, child in resnet.named_children():
            if name not in ("avgpool", "fc"):
                self.layers.add_module(name, child)

    def forward(self, images: Tensor) -> list[Tensor]:
        stages = []
        for name, layer in self.layers.named_children():
            images = layer(images)
            if name.startswith("layer"):
                stages.append(images)
        return stages


def dilate(stage: nn.Sequential) -> None:
    """Replace the stride of a ResNet stage by dilation 2 (in the blocks after the first)."""
    for number, block in enumerate(stage):
        for convolution in (m for m in block.modules() if isinstance(m, nn.Conv2d)):
            convolution.stride = (1, 1)
            if convolution.kernel_size == (3, 3) and number > 0:
                convolution.dilation = convolution.padding = (2, 2)
