"""Layers of timm, which may not be installed: a network that has any of them has imported it."""

from __future__ import annotations

import sys

from torch import nn


def drops_paths(module: nn.Module) -> bool:
    """Whether a layer is timm's stochastic depth, or another of its kinds of dropout."""
    return isinstance(module, _types("DropPath", "DropBlock2d", "PatchDropout"))


def inner_activation(norm: nn.Module) -> nn.Module | None:
    """What timm's BatchNorm with an activation inside does after normalising; None for any other layer."""
    if type(norm) not in _types("BatchNormAct2d"):
        return None
    return nn.Sequential(norm.get_submodule("drop"), norm.get_submodule("act"))


def is_linear_convolution(module: nn.Module) -> bool:
    """Whether a layer is torch's convolution, or timm's that differs by its padding alone."""
    return type(module) in (nn.Conv2d, *_types("Conv2dSame"))


def _types(*names: str) -> tuple[type[nn.Module], ...]:
    layers = sys.modules.get("timm.layers")
    return tuple(getattr(layers, name) for name in names) if layers else ()
