"""The manifest's section `runtime`: how and where a run computes, not what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from eircli.config.section import PositiveInt, Section


class Runtime(Section):
    """Execution settings. May differ between the commands on a run: results agree up to the rounding of another device or
    precision, which the record names."""

    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto is bf16 on CUDA and fp32 on the CPU; fp16 uses a GradScaler."""
    compile: Literal["none", "default", "reduce-overhead", "max-autotune"] = "none"
    """Compile the student with torch.compile in this mode (reduce-overhead and max-autotune replay CUDA graphs), the teacher
    and EIR's losses in the default mode. The first iterations take minutes; needs a C++ compiler, on CUDA Triton."""
    checkpoint_activations: bool = False
    """Keep only each block's input for the backward pass and run the block again there: about a third more time, a
    fraction of the memory."""
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Worker processes that decode images, of each process; auto is one per core in all, at most 8; 0 decodes without."""
    threads: PositiveInt | Literal["auto"] = "auto"
    """Threads that compute on the CPU; auto is one for small batches (fewer than 2^18 pixels), else one a core, or what
    OMP_NUM_THREADS says. Another number gives results that agree up to rounding alone."""
    checkpoint_minutes: Annotated[float, Field(ge=0)] = 5.0
    """Minutes between two checkpoints of an unfinished step."""
    checkpoint_epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the samples between two checkpoints, beside `checkpoint_minutes`."""
    share_base_step: bool = True
    """Take the base step's checkpoint from another run beside this one that agrees on everything up to it."""
    bank_memory_gb: Annotated[float, Field(ge=0)] = 2.0
    """Device memory that a decoded bank of instances may take, in GB (4 bytes a pixel); a larger one stays in host memory,
    from which every batch's instances are copied."""
    log_every: PositiveInt = 10
    """Iterations between two journal entries, at which losses are checked to be finite."""

    @model_validator(mode="after")
    def _compiled_or_recomputed(self) -> Runtime:
        if self.compile != "none" and self.checkpoint_activations:
            raise ValueError("compile and checkpoint_activations exclude each other: give one of them")
        return self
