"""Continual semantic segmentation by enhanced instance replay (EIR).

From Python (`eircli.api` has the whole of it):

    import eircli
    predictor = eircli.load("runs/shapes-6-2-eir-seed0")     # the model of the last trained step
    channels = predictor.predict(image)                      # uint8 [H, W, 3] → uint8 [H, W]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eircli.api import build_memory, evaluate, load, open_run, results, run_protocol, train

__version__ = "0.1.0"

__all__ = ["__version__", "build_memory", "evaluate", "load", "open_run", "results", "run_protocol", "train"]


def __getattr__(name: str) -> Any:
    """The functions of `eircli.api`, which is imported when one is asked for: the commands start without it."""
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("eircli.api"), name)
    raise AttributeError(f"module 'eircli' has no attribute {name!r}")
