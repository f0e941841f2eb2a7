"""A method's losses computed by several processes: gradients averaged (DDP), BatchNorm statistics taken over all of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from eircli.common.distributed import all_reduce_sum, world_size
from eircli.common.types import Batch

ModelT = TypeVar("ModelT", bound=nn.Module)
Losses = dict[str, Tensor]


class Objective(Protocol[ModelT]):  # type: ignore[misc]
    """The interface that the loop needs of a method; see `methods.base.Method`."""

    def counted_pixels(self, batch: Batch) -> Tensor:
        """bool [N, H, W]: the pixels over which the losses take their means."""
        ...

    def prepare(self, batch: Batch) -> Batch:
        """The batch completed for `losses`, without gradient."""
        ...

    def losses(self, model: ModelT, batch: Batch) -> Losses:
        """Named losses, [] each, of a prepared batch; the loop minimises their sum."""
        ...


class Learner(nn.Module):
    """A module whose forward pass is a method's losses: prepared batch in, named losses out.

    DDP hooks into the forward pass of the module that it wraps; a method calls parts of the model, so this is what is wrapped.
    """

    def __init__(self, model: ModelT, objective: Objective[ModelT]) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> Losses:
        return self.objective.losses(cast(Any, self.model), batch)

    def named_buffers(self, *arguments: Any, **options: Any) -> Iterator[tuple[str, Tensor]]:
        """No buffers (tensors of any shape), so that DDP broadcasts none: BatchNorm statistics are the same in all processes
        already."""
        return iter(())


def build_learner(model: ModelT, objective: Objective[ModelT], partly_unused: bool) -> nn.Module:
    """The module that the loop calls, under DDP if there are several processes.

    Args:
        partly_unused: some parameters may get no gradient (DDP's `find_unused_parameters`, which costs time).
    """
    learner = Learner(model, objective)
    if world_size() == 1:
        return learner
    _synchronize_batchnorm(model)
    # A 1×1 convolution's weights are contiguous in both memory formats, so DDP's warning about strides does not apply.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    return DistributedDataParallel(learner, find_unused_parameters=partly_unused)


def no_sync_if(learner: nn.Module, keep: bool) -> AbstractContextManager[None]:
    """With `keep`, backward passes in the block accumulate local gradients without DDP's all-reduce (`no_sync`)."""
    return learner.no_sync() if keep and isinstance(learner, DistributedDataParallel) else nullcontext()


class Communication(NamedTuple):
    """Bytes that a process all-reduces."""

    gradients: int
    """Once per iteration."""
    batchnorm: int
    """Of BatchNorm's means and variances and their gradients, once per micro-batch."""


def communication(model: nn.Module) -> Communication:
    """What a model in training mode all-reduces if there are several processes."""
    gradients = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    channels = sum(module.num_features for module in _learning_batchnorms(model))
    return Communication(gradients, 4 * channels * _statistics_type(next(model.parameters())).itemsize)


def _statistics_type(maps: Tensor) -> torch.dtype:
    """The dtype of BatchNorm's statistics: at least float32."""
    return torch.promote_types(maps.dtype, torch.float32)


def _learning_batchnorms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]


def _synchronize_batchnorm(model: nn.Module) -> None:
    """Make BatchNorm layers in training mode take their statistics over all processes; the state dict's names stay, and so does
    the activation that some of timm's hold."""
    learning = _learning_batchnorms(model)
    activated = {name: module for name, module in model.named_modules() if module in learning and hasattr(module, "act")}
    if learning and next(model.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        for name, before in activated.items():
            module = model.get_submodule(name)
            module.drop, module.act = before.get_submodule("drop"), before.get_submodule("act")
            module.__class__ = ActivatedSyncBatchNorm
        return
    for module in learning:
        module.__class__ = ActivatedSynchronizedBatchNorm if hasattr(module, "act") else SynchronizedBatchNorm


class SynchronizedBatchNorm(_BatchNorm):
    """BatchNorm over the maps [N, C, …] of all processes, which have one shape; torch's SyncBatchNorm needs CUDA tensors."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Of any number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        maps = input.to(_statistics_type(input))
        others, broadcast = [0, *range(2, maps.ndim)], (1, -1, *[1] * (maps.ndim - 2))
        mean = _process_mean(maps.mean(dim=others))
        centred = maps - mean.view(broadcast)
        variance = _process_mean(centred.square().mean(dim=others))
        with torch.no_grad():
            number = world_size() * maps.numel() // maps.shape[1]
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * number / (number - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(broadcast) + self.bias.view(broadcast)).to(input.dtype)


class ActivatedSynchronizedBatchNorm(SynchronizedBatchNorm):
    """The same, then the activation that the layer holds."""

    def forward(self, input: Tensor) -> Tensor:
        return _activated(self, super().forward(input))


class ActivatedSyncBatchNorm(nn.SyncBatchNorm):
    """torch's, then the activation that the layer holds."""

    def forward(self, input: Tensor) -> Tensor:
        return _activated(self, super().forward(input))


def _activated(norm: nn.Module, maps: Tensor) -> Tensor:
    return cast(Tensor, norm.get_submodule("act")(norm.get_submodule("drop")(maps)))


class _ProcessMean(Function):
    """The mean of all processes' tensors; the gradient is the mean of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return all_reduce_sum(tensor) / world_size()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return all_reduce_sum(gradients[0]) / world_size()


def _process_mean(tensor: Tensor) -> Tensor:
    return cast(Tensor, cast(Any, _ProcessMean).apply(tensor))
