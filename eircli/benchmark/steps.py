"""A whole training step, and its passes through the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from eircli.benchmark.measure import Case
from eircli.benchmark.synthetic_inputs import synthetic_batch, synthetic_instances
from eircli.common.types import Batch
from eircli.config.manifest import Manifest
from eircli.engine.device import Compute
from eircli.engine.optim import build_optimizer
from eircli.methods.base import Context, Method
from eircli.methods.measured import Role, measured_method
from eircli.model.acceleration import accelerate
from eircli.model.deeplab import DeepLab


@dataclass(frozen=True)
class TrainingSetup:
    """A student, its method and a batch of noise, as in a step that learns `new` classes after `old`."""

    model: DeepLab
    teacher: DeepLab
    method: Method
    batch: Batch
    compute: Compute
    optimizer: torch.optim.Optimizer
    scaler: GradScaler

    def step(self) -> None:
        """One iteration of training."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.compute.autocast():
            with torch.no_grad():
                prepared = self.method.prepare(self.batch)
            losses = self.method.losses(self.model, prepared)
        self.scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def forward(self, network: DeepLab) -> Tensor:
        """The batch's logits [N, K, h, w] under a network, in the compute's dtype."""
        with self.compute.autocast():
            return network(self.batch.images.float())  # type: ignore[no-any-return]


def training_setup(manifest: Manifest, classes: tuple[int, int], n: int, compute: Compute, role: Role) -> TrainingSetup:
    """A step of the recipe's network with `classes` (old, new) on `n` images, by the method of a role."""
    torch.manual_seed(0)
    old, new = classes
    model = DeepLab(manifest.model, [old])
    settle_batchnorm(model)
    teacher = model.frozen_copy()
    model.add_classes(new)
    if role != "plain":
        accelerate(model, teacher, manifest.runtime, compute.device.type, compute.dtype)
    model, teacher = model.to(compute.device), teacher.to(compute.device)
    side = manifest.data.crop_size
    slot = manifest.method.slot_side or side // 2
    model.train_mode(frozen_batchnorm=True, dropout=False)
    instances = synthetic_instances(old, 2, min(150, slot), compute.device)
    context = Context(old, new, teacher, instances, compiled=manifest.runtime.compile != "none")
    method = measured_method(role, manifest.method, slot, context)
    batch = synthetic_batch(n, side, [old + 1], compute.device)
    scaler = compute.scaler()
    optimizer = build_optimizer(model.parameter_groups(), manifest.train, fused=not scaler.is_enabled())
    return TrainingSetup(model, teacher, method, batch, compute, optimizer, scaler)


@torch.no_grad()
def settle_batchnorm(model: DeepLab) -> None:
    """Set the BatchNorm statistics of a randomly initialised network from noise: without, activations of deep networks overflow or
    become denormal, which slows processors down."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 1.0
    model.train()
    model(torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def step_cases(manifest: Manifest, classes: tuple[int, int], n: int, compute: Compute, against_plain: bool) -> list[Case]:
    """The whole step, a fine-tuning step, and the passes through the network; per batch."""
    name = str(compute.dtype).removeprefix("torch.")
    incremental = training_setup(manifest, classes, n, compute, "incremental")
    plain = training_setup(manifest, classes, n, compute, "plain") if against_plain else None
    fine_tuning = training_setup(manifest, classes, n, compute, "fine-tuning")

    @torch.no_grad()
    def teach() -> None:
        incremental.forward(incremental.teacher)

    def student_forward_backward() -> None:
        incremental.forward(incremental.model).float().sum().backward()
        incremental.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def teach_plainly() -> None:
        assert plain is not None
        plain.forward(plain.teacher)

    return [
        Case(f"incremental step, {name}", incremental.step, plain.step if plain else None, memory=True),
        Case(f"fine-tuning step, {name}", fine_tuning.step, memory=True),
        Case(f"teacher's pass, {name} (two a step)", teach, teach_plainly if plain else None),
        Case(f"student forward and backward, {name}", student_forward_backward),
    ]


def forward_flops(manifest: Manifest, classes: tuple[int, int]) -> int:
    """Floating-point operations of one image's pass through the network, a multiplication and an addition being two."""
    model, side = DeepLab(manifest.model, classes).eval(), manifest.data.crop_size
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, side, side))
    return int(counter.get_total_flops())


def matmul_case(compute: Compute) -> tuple[Case, int]:
    """Multiplying two square matrices, and its floating-point operations: the device's attainable rate."""
    size = 8192 if compute.device.type == "cuda" else 2048
    matrix = torch.randn(size, size, device=compute.device, dtype=compute.dtype)
    return Case(f"matrix multiplication, {str(compute.dtype).removeprefix('torch.')}", lambda: matrix @ matrix), 2 * size**3
