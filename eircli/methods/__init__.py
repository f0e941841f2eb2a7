"""Continual-learning methods, one file each."""

from collections.abc import Callable
from typing import Any

from eircli.manifest import MethodConfig
from eircli.methods.base import Context, Method
from eircli.methods.eir import Eir
from eircli.methods.finetune import Finetune

METHODS: dict[str, Callable[[Any, Context], Method]] = {"finetune": Finetune, "eir": Eir}


def build_method(config: MethodConfig, context: Context) -> Method:
    """The method that a manifest's `method` section names, for one step."""
    return METHODS[config.name](config, context)
