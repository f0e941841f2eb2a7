"""Continual-learning methods, one file each."""

from eircli.manifest import MethodConfig
from eircli.methods.base import Context, Method
from eircli.methods.eir import Eir
from eircli.methods.finetune import Finetune

METHODS = {"finetune": Finetune, "eir": Eir}


def build_method(config: MethodConfig, context: Context) -> Method:
    """The method that a manifest's `method` section names, for one step."""
    return METHODS[config.name](config, context)  # type: ignore[arg-type]
