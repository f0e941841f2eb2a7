"""Measuring the time and memory of a function, and of its reference implementation in turns."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

Work = Callable[[], object]

MIN_REPEATS, MAX_REPEATS = 3, 200
"""Minimum and maximum repeats."""


@dataclass(frozen=True)
class Case:
    """Something that is measured."""

    name: str
    work: Work
    plain: Work | None = None
    """The same by the reference implementation."""
    per: int = 1
    """Items, such as images, that one call processes; times are per item."""
    memory: bool = False
    """Whether memory is measured too."""


@dataclass(frozen=True)
class Cost:
    """What a case costs; the reference implementation's figures are None where it was not measured."""

    name: str
    milliseconds: float
    """The median over the repeats."""
    plain_milliseconds: float | None
    ratio: float | None
    """Plain over fast: the median of the ratios of neighbouring repeats."""
    mebibytes: float | None
    """The peak above the baseline."""
    plain_mebibytes: float | None


def cost(case: Case, device: torch.device, seconds: float, against_plain: bool) -> Cost:
    """Measure a case for about `seconds`, plain and fast in turns, so that other load on the machine affects both alike."""
    plain = case.plain if against_plain else None
    works = [case.work] if plain is None else [case.work, plain]
    memory = [peak_memory(work, device) if case.memory else None for work in works]
    for work in works:  # caches, compilers and allocators settle
        work()
    times: list[list[float]] = [[] for _ in works]
    started = time.perf_counter()
    while len(times[0]) < MIN_REPEATS or (time.perf_counter() - started < seconds and len(times[0]) < MAX_REPEATS):
        for work, taken in zip(works, times, strict=True):
            taken.append(timed(work, device))
    scale = 1000 / case.per
    ratio = median(slow / fast for fast, slow in zip(*times, strict=True)) if plain else None
    return Cost(
        case.name,
        median(times[0]) * scale,
        median(times[1]) * scale if plain else None,
        ratio,
        memory[0],
        memory[1] if plain else None,
    )


def timed(work: Work, device: torch.device) -> float:
    """Seconds of one call, the device's work included."""
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def peak_memory(work: Work, device: torch.device) -> float | None:
    """The peak memory of a call above the baseline, MiB; None where the system does not tell."""
    gc.collect()
    if device.type == "cuda":
        work()  # warm-up: CUDA libraries allocate workspaces once
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if not sys.platform.startswith("linux"):
        return None
    work()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # return freed memory to the system, or it would hide what the call takes
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    """A figure of /proc/self/status, KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
