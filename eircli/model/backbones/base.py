"""What a backbone is: images in, the maps of its stages out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

OTHER_PARTS = ("classifier.", "aux_classifier.", "aspp.", "cls.")
"""How names of the other parts begin in files of whole segmentation networks."""


class Backbone(nn.Module, ABC):
    """A feature extractor.

    Each backbone's module has two names beside it: `build(name) -> Backbone`, with random weights, and `BLOCKS`, the types of
    the parts that are run again in the backward pass where memory is short.
    """

    prefix: ClassVar[str] = ""
    """What stands before a parameter's name here that it has not in files of the network's own weights."""
    ignored_prefixes: ClassVar[tuple[str, ...]] = ()
    """How names begin, in such files, of parts that are not taken, such as the classifier."""

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images float [N, 3, H, W] → the maps of the stages [N, C, h, w], the last of them the features."""
