"""The table of backbones. A backbone is a line here and a module in `eircli/model/backbones/` that builds it."""

from __future__ import annotations

from typing import NamedTuple

Triple = tuple[float, float, float]


class BackboneEntry(NamedTuple):
    """What is known of a backbone before it is built."""

    module: str
    """The module of `eircli.model.backbones` that builds it and names its blocks."""
    channels: int
    """Of its features."""
    stride: int
    """Pixels of the image per cell of the features."""
    weights: str | None = None
    """torchvision's name of its ImageNet weights; None where there are none."""
    mean: Triple = (123.675, 116.28, 103.53)
    """Of the images it is trained on, in 0..255: red, green, blue."""
    std: Triple = (58.395, 57.12, 57.375)


DEFAULT_BACKBONE = "resnet101"
"""The paper's."""

BACKBONES = {
    "resnet101": BackboneEntry("resnet", 2048, 16, "ResNet101_Weights.IMAGENET1K_V1"),
    "resnet50": BackboneEntry("resnet", 2048, 16, "ResNet50_Weights.IMAGENET1K_V1"),
    "resnet18": BackboneEntry("resnet", 512, 16, "ResNet18_Weights.IMAGENET1K_V1"),
    "swin_t": BackboneEntry("swin", 768, 16, "Swin_T_Weights.IMAGENET1K_V1"),
    "swin_s": BackboneEntry("swin", 768, 16, "Swin_S_Weights.IMAGENET1K_V1"),
    "swin_b": BackboneEntry("swin", 1024, 16, "Swin_B_Weights.IMAGENET1K_V1"),
    "tiny": BackboneEntry("tiny", 64, 4),
}
