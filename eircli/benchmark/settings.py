"""How things are measured, and on what machine."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from eircli.benchmark.measure import Case, Cost, cost
from eircli.benchmark.report import Machine
from eircli.common.progress import Say
from eircli.engine.device import Compute, choose_compute
from eircli.run.run import Run


@dataclass(frozen=True)
class Settings:
    """How things are measured."""

    compute: Compute
    batch: int
    """Images in a step."""
    seconds: float
    """Approximate seconds per measurement."""
    against_plain: bool
    say: Say

    def costs(self, cases: Iterable[Case]) -> list[Cost]:
        """Measure some cases."""
        found = []
        for case in cases:
            self.say(f"measuring: {case.name}")
            found.append(cost(case, self.compute.device, self.seconds, self.against_plain))
        return found


def settings_for(run: Run, batch: int | None, threads: int | None, seconds: float, against_plain: bool, say: Say) -> Settings:
    """By default a step is the recipe's batch on a GPU and two images on the CPU, with as many threads as torch takes."""
    if threads is not None:
        torch.set_num_threads(threads)
    compute = choose_compute(run.manifest.runtime)
    default = run.manifest.train.batch_size if compute.device.type == "cuda" else 2
    return Settings(compute, batch or default, seconds, against_plain, say)


def machine(device: torch.device) -> Machine:
    """What the figures were measured on."""
    cuda = device.type == "cuda"
    return Machine(
        processor=_processor(),
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if cuda else "cpu",
        instructions=torch.backends.cpu.get_cpu_capability(),
        torch=torch.__version__,
        system=platform.platform(),
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if names:
            return f"{len(names)} × {names[0]}"
    return platform.processor() or platform.machine()
