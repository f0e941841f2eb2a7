"""Optimizer and learning-rate schedule (methods/README.md §6)."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn import Parameter
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from eircli.config.manifest import StepTraining


def build_optimizer(
    backbone: Sequence[Parameter],
    head: Sequence[Parameter],
    newest: Sequence[Parameter],
    config: StepTraining,
    fused: bool = True,
) -> SGD:
    """SGD with Nesterov momentum over the parameters of the backbone, the head, and the newest classifier.

    Args:
        fused: one kernel for all of it; not with GradScaler: a skipped first step would leave momentum buffers uninitialised.
    """
    decay = config.weight_decay if config.weight_decay_on == "all" else 0.0
    head_lr = config.lr * config.head_lr_factor
    groups = [
        {"params": list(backbone), "lr": config.lr, "weight_decay": decay},
        {"params": list(head), "lr": head_lr, "weight_decay": decay},
        {"params": list(newest), "lr": head_lr, "weight_decay": config.weight_decay},
    ]
    return SGD(groups, momentum=config.momentum, nesterov=config.momentum > 0, fused=fused)


def build_scheduler(optimizer: SGD, config: StepTraining, iterations: int) -> LambdaLR:
    """Polynomial decay per iteration, under a linear warm-up over the first `config.warmup` of the iterations."""
    warmup = round(config.warmup * iterations)

    def factor(iteration: int) -> float:
        rise = (iteration + 1) / warmup if iteration < warmup else 1.0
        return float(rise * max(1 - iteration / iterations, 0.0) ** config.poly_power)

    return LambdaLR(optimizer, factor)
