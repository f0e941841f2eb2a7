"""Which device and precision a run uses."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch.amp.grad_scaler import GradScaler

from eircli.common.distributed import world_size
from eircli.common.errors import UserError
from eircli.common.torchrun_env import launched
from eircli.config.runtime import Runtime


class Compute(NamedTuple):
    """A device and the dtype of forward passes on it."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[object]:
        """Forward passes inside run in `dtype`."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def scaler(self) -> GradScaler:
        """A loss scaler, active in fp16 alone."""
        return GradScaler(self.device.type, enabled=self.dtype == torch.float16)


def choose_compute(config: Runtime) -> Compute:
    """The device and precision that `runtime` asks for; of several processes on a machine each has a GPU of its own.

    Raises:
        UserError: a device that is not there, one for several processes, or fp16 on the CPU.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device)
    except RuntimeError:
        raise UserError(f"runtime.device: '{config.device}' is no device; give auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("runtime.device: no CUDA device is available here; give --device cpu or auto")
    if device.type == "cuda" and world_size() > 1:
        device = _own_gpu(config.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"runtime.device: there is no {device}; the last one is cuda:{torch.cuda.device_count() - 1}")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"runtime.device: {device.type} is not supported; give auto, cpu, cuda or cuda:N")
    if config.precision == "fp16" and device.type == "cpu":
        raise UserError("runtime.precision: fp16 needs CUDA; give fp32 or bf16 on the CPU")
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    automatic = torch.bfloat16 if device.type == "cuda" else torch.float32
    return Compute(device, named.get(config.precision, automatic))


def _own_gpu(wanted: str) -> torch.device:
    own = launched().local_rank
    if wanted not in ("auto", "cuda"):
        raise UserError(f"runtime.device: {wanted} is one device, for several processes; give auto, cpu or cuda")
    if own >= torch.cuda.device_count():
        raise UserError(
            f"more processes than the {torch.cuda.device_count()} GPUs of this machine; lower --nproc-per-node, or give --device cpu"
        )
    return torch.device("cuda", own)
