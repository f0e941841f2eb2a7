"""What a backbone is: images in, the maps of its stages out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

OTHER_PARTS = ("classifier.", "aux_classifier.", "aspp.", "cls.")
"""State-dict prefixes of the other parts of whole segmentation networks."""


class Backbone(nn.Module, ABC):
    """A feature extractor.

    Each backbone's module must also define `build(name) -> Backbone`, with random weights, `BLOCKS`, the block types for
    activation checkpointing, and where there are ImageNet weights `imagenet_weights(name)`, their state dict.
    """

    prefix: ClassVar[str] = ""
    """Prefix of its parameter names relative to the wrapped network's state dict."""
    ignored_prefixes: ClassVar[tuple[str, ...]] = ()
    """State-dict prefixes that are ignored when loading."""

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images float [N, 3, H, W] → the maps of the stages [N, C, h, w], the last of them the features."""
