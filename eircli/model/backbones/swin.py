"""torchvision's Swin transformers, their last stage upsampled to output stride 16."""

from __future__ import annotations

from typing import cast

import torchvision
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models.swin_transformer import SwinTransformerBlock

from eircli.model.backbones.base import OTHER_PARTS, Backbone
from eircli.model.backbones.torchvision_weights import imagenet_weights

__all__ = ["build", "imagenet_weights"]


def build(name: str) -> Backbone:
    """torchvision's network of that name as a backbone."""
    return SwinFeatures(getattr(torchvision.models, name)(weights=None))


class SwinFeatures(Backbone):
    """A Swin transformer without pooling and classifier; its last stage, at stride 32, is upsampled to H/16 × W/16."""

    stride = 16
    block_types = (SwinTransformerBlock,)
    ignored_prefixes = ("head.", *OTHER_PARTS)

    def __init__(self, swin: nn.Module) -> None:
        super().__init__()
        self.channels = cast(nn.Linear, swin.head).in_features
        self.features, self.norm = cast(nn.Sequential, swin.features), cast(nn.Module, swin.norm)

    def forward(self, images: Tensor) -> list[Tensor]:
        stages, maps = [], images
        for number, layer in enumerate(self.features):
            maps = layer(maps)
            if number % 2:  # odd indices are stages; even ones patch embedding or merging
                stages.append(maps.permute(0, 3, 1, 2))
        last = self.norm(maps).permute(0, 3, 1, 2)
        return [*stages[:-1], interpolate(last, stages[-2].shape[2:], mode="bilinear", align_corners=False)]
