"""Optimizers and learning-rate schedule (methods/README.md §6)."""

from __future__ import annotations

from typing import Any

from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from eircli.common.errors import UserError
from eircli.common.types import ParameterGroups
from eircli.config.manifest import StepTraining


def build_optimizer(parameters: ParameterGroups, config: StepTraining, fused: bool = True) -> Optimizer:
    """SGD with Nesterov momentum, or AdamW, over the parameters of the backbone, the head, and the newest classifier.

    Args:
        fused: one kernel for all of it; not with GradScaler: a skipped first step would leave momentum buffers uninitialised.

    Raises:
        UserError: `layer_decay` with a backbone whose depths are not known.
    """
    decay = config.weight_decay if config.weight_decay_on == "all" else 0.0
    head_lr = config.lr * config.head_lr_factor
    groups = [
        *_backbone(parameters.backbone, config, decay),
        {"params": parameters.head, "lr": head_lr, "weight_decay": decay},
        {"params": parameters.newest, "lr": head_lr, "weight_decay": config.weight_decay},
    ]
    if config.optimizer == "sgd":
        return SGD(groups, momentum=config.momentum, nesterov=config.momentum > 0, fused=fused)
    return AdamW([part for group in groups for part in _halves(group, parameters.matrices)], fused=fused)


Group = dict[str, Any]
"""A parameter group of torch's."""


def _backbone(depths: list[list[Parameter]], config: StepTraining, decay: float) -> list[Group]:
    """The last depth learns at `lr`, each one before it at `layer_decay` times the rate of the next."""
    if config.layer_decay is None:
        return [{"params": [p for depth in depths for p in depth], "lr": config.lr, "weight_decay": decay}]
    if len(depths) == 1:
        raise UserError("train.layer_decay: the blocks of this backbone are not known; leave it out")
    return [
        {"params": parameters, "lr": config.lr * config.layer_decay**below, "weight_decay": decay}
        for below, parameters in enumerate(reversed(depths))
    ]


def _halves(group: Group, matrices: set[int]) -> list[Group]:
    """A group as two: weights of convolutions and linear layers, and all else, whose weights do not decay."""
    inside = [p for p in group["params"] if id(p) in matrices]
    outside = [p for p in group["params"] if id(p) not in matrices]
    halves = [{**group, "params": inside}, {**group, "params": outside, "weight_decay": 0.0}]
    return [half for half in halves if half["params"]]


def build_scheduler(optimizer: Optimizer, config: StepTraining, iterations: int) -> LambdaLR:
    """Polynomial decay per iteration, under a linear warm-up over the first `config.warmup` of the iterations."""
    warmup = round(config.warmup * iterations)

    def factor(iteration: int) -> float:
        rise = (iteration + 1) / warmup if iteration < warmup else 1.0
        return float(rise * max(1 - iteration / iterations, 0.0) ** config.poly_power)

    return LambdaLR(optimizer, factor)
