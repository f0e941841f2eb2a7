"""Feature extractors, one file a family. The table of their names is `eircli/config/backbones.py`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from eircli.common.errors import UserError
from eircli.config.backbones import BACKBONES, TIMM, TIMM_MODULE, Normalisation
from eircli.model.backbones.base import Backbone
from eircli.model.safe_loading import load_tensors

if TYPE_CHECKING:
    from eircli.config.manifest import Model


def build_backbone(config: Model, load_weights: bool) -> Backbone:
    """The backbone of a manifest.

    Args:
        load_weights: start from `config.weights`; False leaves them random, for a checkpoint to fill.

    Raises:
        UserError: timm does not know it; weights that cannot be fetched, read, or do not fit.
    """
    backbone: Backbone = _module(config.backbone).build(config.backbone)
    if load_weights and config.weights != "none":
        _load(backbone, config)
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = config.batchnorm_momentum
    return backbone


def normalisation(name: str) -> Normalisation:
    """How a backbone wants its images.

    Raises:
        UserError: timm does not know it.
    """
    return cast(Normalisation, _module(name).normalisation(name)) if name.startswith(TIMM) else BACKBONES[name].normalisation


def weights_license(config: Model) -> str | None:
    """The licence of the weights that the backbone starts from: "unknown" of a file, or where timm does not say; None without weights."""
    if config.weights != "imagenet":
        return None if config.weights == "none" else "unknown"
    if config.backbone.startswith(TIMM):
        return cast(str | None, _module(config.backbone).weights_license(config.backbone)) or "unknown"
    return BACKBONES[config.backbone].license


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{TIMM_MODULE if name.startswith(TIMM) else BACKBONES[name].module}")


def _load(backbone: Backbone, config: Model) -> None:
    try:
        state = _imagenet(config) if config.weights == "imagenet" else backbone.renamed(_of_file(config.weights))
        kept = {f"{backbone.prefix}{key}": v for key, v in state.items() if not key.startswith(backbone.ignored_prefixes)}
        backbone.load_state_dict(kept)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"model.weights: {config.weights} does not fit {config.backbone}: {reason}") from None


def _imagenet(config: Model) -> dict[str, Tensor]:
    if not config.backbone.startswith(TIMM) and BACKBONES[config.backbone].weights is None:
        raise UserError(f"model.weights: there are no ImageNet weights of {config.backbone}; set model.weights to none or a file")
    return cast(dict[str, Tensor], _module(config.backbone).imagenet_weights(config.backbone))


def _of_file(name: str) -> dict[str, Tensor]:
    path = Path(name)
    if not path.is_file():
        raise UserError(f"model.weights: {path} is no file; give imagenet, none, or a state-dict file")
    return {name.removeprefix("backbone."): tensor for name, tensor in load_tensors(path).tensors.items()}
