"""Acceleration: folded BatchNorm, low-precision weights, activation checkpointing, compilation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint
from torchvision.models.segmentation.deeplabv3 import ASPP

from eircli.config.runtime import Runtime
from eircli.model.backbones import recomputed_blocks
from eircli.model.deeplab import DeepLab
from eircli.model.tap_convolution import use_tap_convolutions


def accelerate(student: DeepLab, teacher: DeepLab | None, runtime: Runtime, device_type: str, dtype: torch.dtype) -> None:
    """Make student and teacher cheaper to run, as `runtime` says; what they compute stays the same, to rounding.

    Args:
        device_type, dtype: where they will run, and the dtype of their forward passes.
    """
    if runtime.checkpoint_activations:
        checkpoint_activations(student)
    if teacher is not None:
        fold_batchnorm(teacher)
        if dtype != torch.float32:
            lower_weights(teacher, dtype)
    for network in (student, teacher):
        if network is not None and device_type == "cpu" and dtype == torch.bfloat16:
            use_tap_convolutions(network)
    if runtime.compile != "none":
        for network in (student, teacher):
            if network is not None:
                # Not CUDA graphs for the teacher: a second pass would overwrite the static output buffers of the first.
                compile_model(network, runtime.compile if network is student else "default")


def fold_batchnorm(model: nn.Module) -> None:
    """Fold every BatchNorm that follows a convolution into the convolution's weights. For frozen models in evaluation mode.

    Only where both are torch's own layers: a subclass may do more, such as include an activation, and is left alone.
    """
    for parent in list(model.modules()):
        before: tuple[str, nn.Module] | None = None
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d and before is not None and type(before[1]) is nn.Conv2d:
                setattr(parent, before[0], fuse_conv_bn_eval(before[1], child))
                setattr(parent, name, nn.Identity())
            before = name, child


def lower_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast a frozen model's convolutions and linear layers to the autocast dtype.

    Autocast converts them anew in every pass: it caches only weights that require gradients.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(dtype)


def compile_model(model: DeepLab, mode: str) -> None:
    """Compile backbone and head in place; names and weights stay as they are."""
    for part in (model.backbone, model.head):
        cast(Any, part).compile(mode=mode)


def checkpoint_activations(model: DeepLab) -> None:
    """Activation checkpointing: keep only the inputs of the model's blocks; the backward pass recomputes the rest."""
    blocks = (*recomputed_blocks(model.config.backbone), ASPP)
    for module in model.modules():
        if isinstance(module, blocks):
            module.forward = partial(_recomputed, module, module.forward)


def _recomputed(module: nn.Module, forward: Any, *inputs: torch.Tensor) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _keeping_statistics(module)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _keeping_statistics(module: nn.Module) -> Iterator[None]:
    """Leave BatchNorm's running statistics alone in the block: the first forward pass has updated them already."""
    layers = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    counts = [None if layer.num_batches_tracked is None else layer.num_batches_tracked.clone() for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum, count in zip(layers, momenta, counts, strict=True):
            layer.momentum = momentum
            if count is not None and layer.num_batches_tracked is not None:
                layer.num_batches_tracked.copy_(count)
