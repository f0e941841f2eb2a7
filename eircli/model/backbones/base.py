"""What a backbone is: images in, the maps of its stages out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

OTHER_PARTS = ("classifier.", "aux_classifier.", "aspp.", "cls.")
"""State-dict prefixes of the other parts of whole segmentation networks."""


class Backbone(nn.Module, ABC):
    """A feature extractor.

    Each backbone's module must also define `build(name) -> Backbone`, with random weights, and where there are ImageNet
    weights `imagenet_weights(name)`, their state dict.
    """

    channels: int
    """Channels of the last map."""
    stride: int
    """Pixels of the image per cell of the last map; the last cells may reach beyond it."""
    block_types: ClassVar[tuple[type[nn.Module], ...]] = ()
    """The types of its blocks."""
    prefix: ClassVar[str] = ""
    """Prefix of its parameter names relative to the wrapped network's state dict."""
    ignored_prefixes: tuple[str, ...] = ()
    """State-dict prefixes that are ignored when loading."""

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images float [N, 3, H, W] → the maps of the stages [N, C, h, w], the last of them the features."""

    def blocks(self) -> list[nn.Module]:
        """Its residual or transformer blocks, from the stem on: what activation checkpointing recomputes, and the depths of
        `by_depth`."""
        return [module for module in self.modules() if isinstance(module, self.block_types)]

    def by_depth(self) -> list[list[nn.Parameter]]:
        """Its parameters: the stem's, then of each block, with what stands between it and the next."""
        blocks = {id(block) for block in self.blocks()}
        depths: list[list[nn.Parameter]] = [[]]
        for module in self.modules():
            if id(module) in blocks:
                depths.append([])
            depths[-1] += module.parameters(recurse=False)
        return depths

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of a file (tensors of any shape) in the wrapped network's names."""
        return state
