"""Feature extractors, one file a family. The table of their names is `eircli/config/backbones.py`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from eircli.common.errors import UserError
from eircli.config.backbones import BACKBONES
from eircli.model.backbones.base import Backbone
from eircli.model.safe_loading import load_tensors

if TYPE_CHECKING:
    from eircli.config.manifest import Model


def build_backbone(config: Model, load_weights: bool) -> Backbone:
    """The backbone of a manifest.

    Args:
        load_weights: start from `config.weights`; False leaves them random, for a checkpoint to fill.

    Raises:
        UserError: weights that cannot be fetched, read, or do not fit.
    """
    backbone: Backbone = _module(config.backbone).build(config.backbone)
    if load_weights and config.weights != "none":
        _load(backbone, _weights(config), config)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = config.batchnorm_momentum
    return backbone


def recomputed_blocks(name: str) -> tuple[type[nn.Module], ...]:
    """Block types of a backbone for activation checkpointing."""
    blocks: tuple[type[nn.Module], ...] = _module(name).BLOCKS
    return blocks


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{BACKBONES[name].module}")


def _weights(config: Model) -> dict[str, Tensor]:
    if config.weights == "imagenet":
        if config.backbone_entry.weights is None:
            raise UserError(
                f"model.weights: there are no ImageNet weights of {config.backbone}; set model.weights to none or a file"
            )
        return cast(dict[str, Tensor], _module(config.backbone).imagenet_weights(config.backbone))
    path = Path(config.weights)
    if not path.is_file():
        raise UserError(f"model.weights: {path} is no file; give imagenet, none, or a state-dict file")
    return {name.removeprefix("backbone."): tensor for name, tensor in load_tensors(path).tensors.items()}


def _load(backbone: Backbone, state: dict[str, Tensor], config: Model) -> None:
    state = {f"{backbone.prefix}{key}": value for key, value in state.items() if not key.startswith(backbone.ignored_prefixes)}
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"model.weights: {config.weights} does not fit {config.backbone}: {reason}") from None
