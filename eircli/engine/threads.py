"""How many threads compute on the CPU."""

from __future__ import annotations

import os

import torch

from eircli.config.manifest import Manifest
from eircli.engine.device import Compute

SMALL = 1 << 18
"""Pixels of a batch; with fewer, threads wait for each other longer than they work."""

AT_START = torch.get_num_threads()
"""As many as torch takes by itself: one a core, or what the environment says."""


def use_threads(manifest: Manifest, compute: Compute, step: int) -> int:
    """Set, for the work of a step on the CPU, the number of threads that `runtime.threads` says.

    Returns:
        The number; on a GPU it is left as it was.
    """
    wanted = manifest.runtime.threads
    if wanted == "auto" and compute.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        small = manifest.training(step).batch_size * manifest.data.crop_size**2 < SMALL
        torch.set_num_threads(1 if small else AT_START)
    elif wanted != "auto":
        torch.set_num_threads(wanted)
    return torch.get_num_threads()
