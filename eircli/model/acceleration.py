"""Acceleration: folded BatchNorm, low-precision weights, activation checkpointing, compilation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint
from torchvision.models.segmentation.deeplabv3 import ASPP

from eircli.common.errors import UserError
from eircli.config.runtime import Runtime
from eircli.model.deeplab import DeepLab
from eircli.model.optional_layers import inner_activation, is_linear_convolution
from eircli.model.tap_convolution import use_tap_convolutions

EXAMPLE_SIDE = 64
"""Pixels of the blank image over which it is seen how a network's layers follow each other."""


def accelerate(student: DeepLab, teacher: DeepLab | None, runtime: Runtime, device_type: str, dtype: torch.dtype) -> None:
    """Make student and teacher cheaper to run, as `runtime` says; what they compute stays the same, to rounding.

    Args:
        device_type, dtype: where they will run, and the dtype of their forward passes.
    """
    if runtime.checkpoint_activations:
        checkpoint_activations(student)
    if teacher is not None:
        fold_batchnorm(teacher, torch.zeros(1, 3, EXAMPLE_SIDE, EXAMPLE_SIDE))
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


def fold_batchnorm(model: nn.Module, example: Tensor) -> None:
    """Fold every BatchNorm that follows a convolution into the convolution's weights. For frozen models in evaluation mode.

    Only where both are torch's own layers, or timm's: of a norm with an activation inside, the activation stays. Another
    subclass may do more, and is left alone.

    Args:
        example: an input of the model, of any shape: what follows what is seen in a pass over it.
    """
    for parent, name, convolution in _folded(model, example):
        norm = parent.get_submodule(name)
        fused = fuse_conv_bn_eval(convolution, cast(nn.BatchNorm2d, norm))
        convolution.weight, convolution.bias = fused.weight, fused.bias
        setattr(parent, name, inner_activation(norm) or nn.Identity())


@torch.no_grad()
def _folded(model: nn.Module, example: Tensor) -> list[tuple[nn.Module, str, nn.Conv2d]]:
    """A norm's parent and its name there, and the convolution before it, of those whose norm is next to it in its parent and, each
    time, reads what it made: the order in which layers are registered need not be that in which they run."""
    next_to = _neighbours(model)
    made: dict[nn.Module, list[Tensor]] = {convolution: [] for _, _, convolution in next_to}
    read: dict[nn.Module, list[Tensor]] = {parent.get_submodule(name): [] for parent, name, _ in next_to}
    hooks = [module.register_forward_hook(lambda m, _, output: made[m].append(output)) for module in made]
    hooks += [module.register_forward_pre_hook(lambda m, inputs: read[m].append(inputs[0])) for module in read]
    model(example)
    for hook in hooks:
        hook.remove()
    return [
        (parent, name, convolution)
        for parent, name, convolution in next_to
        if [id(maps) for maps in made[convolution]] == [id(maps) for maps in read[parent.get_submodule(name)]]
    ]


def _neighbours(model: nn.Module) -> list[tuple[nn.Module, str, nn.Conv2d]]:
    found = []
    for parent in model.modules():
        before: nn.Module | None = None
        for name, child in parent.named_children():
            is_norm = type(child) is nn.BatchNorm2d or inner_activation(child) is not None
            if is_norm and before is not None and is_linear_convolution(before):
                found.append((parent, name, cast(nn.Conv2d, before)))
            before = child
            while type(before) is nn.Sequential and len(before):
                before = before[-1]
    return found


def lower_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast a frozen model's convolutions and linear layers to the autocast dtype.

    Autocast converts them anew in every pass: it caches only weights that require gradients. Subclasses that compute with
    their weights first, such as timm's weight standardisation, are left alone.
    """
    for module in model.modules():
        if is_linear_convolution(module) or type(module) is nn.Linear:
            module.to(dtype)


def compile_model(model: DeepLab, mode: str) -> None:
    """Compile backbone and head in place; names and weights stay as they are."""
    for part in (model.backbone, model.head):
        cast(Any, part).compile(mode=mode)


def checkpoint_activations(model: DeepLab) -> None:
    """Activation checkpointing: keep only the inputs of the model's blocks; the backward pass recomputes the rest.

    Raises:
        UserError: the backbone's blocks are not known.
    """
    blocks = model.backbone.blocks()
    if not blocks:
        raise UserError(f"runtime.checkpoint_activations: the blocks of {model.config.backbone} are not known; set it to false")
    for module in (*blocks, *(part for part in model.head.modules() if isinstance(part, ASPP))):
        module.forward = partial(_recomputed, module, module.forward)


def _recomputed(module: nn.Module, forward: Any, *inputs: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _keeping_statistics(module)

    def run(*inputs: Any) -> Any:
        return forward(*_copied(inputs), **options)

    return checkpoint(run, *_copied(inputs), use_reentrant=False, context_fn=contexts)


def _copied(inputs: tuple[Any, ...]) -> list[Any]:
    """With lists of their own: some of timm's blocks, or who calls them, change the list of maps that they are given."""
    return [list(given) if isinstance(given, list) else given for given in inputs]


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
