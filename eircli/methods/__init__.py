"""Continual-learning methods, one file each."""

from collections.abc import Callable
from typing import Any

from eircli.config.methods import MethodConfig
from eircli.methods.base import Context, Method
from eircli.methods.dkd import Dkd
from eircli.methods.eir import Eir
from eircli.methods.finetune import Finetune
from eircli.methods.ilt import Ilt
from eircli.methods.image_replay import ImageReplay
from eircli.methods.lwf import Lwf
from eircli.methods.mib import Mib
from eircli.methods.plop import Plop
from eircli.methods.ssul import Ssul
from eircli.methods.star import Star

METHODS: dict[str, Callable[[Any, Context], Method]] = {
    "finetune": Finetune,
    "eir": Eir,
    "image-replay": ImageReplay,
    "lwf": Lwf,
    "ilt": Ilt,
    "mib": Mib,
    "plop": Plop,
    "dkd": Dkd,
    "ssul": Ssul,
    "star": Star,
}


def build_method(config: MethodConfig, context: Context) -> Method:
    """The method that a manifest's `method` section names, for one step; in a shared base step always the same one."""
    if context.teacher is None and config.base_step == "shared":
        return Finetune(config, context)
    return METHODS[config.name](config, context)
