"""Continual-learning methods, one file each."""

from collections.abc import Callable
from typing import Any

from eircli.config.methods import MethodConfig
from eircli.methods.base import CalibrationPass, Context, Method, MethodState
from eircli.methods.cogamid import Cogamid
from eircli.methods.dft import Dft
from eircli.methods.dkd import Dkd
from eircli.methods.eir import Eir
from eircli.methods.finetune import Finetune
from eircli.methods.ilt import Ilt
from eircli.methods.image_replay import ImageReplay
from eircli.methods.lwf import Lwf
from eircli.methods.mbs import Mbs
from eircli.methods.mib import Mib
from eircli.methods.plop import Plop
from eircli.methods.ssul import Ssul
from eircli.methods.star import Star
from eircli.model.deeplab import DeepLab

METHODS: dict[str, Callable[[Any, Context], Method]] = {
    "finetune": Finetune,
    "eir": Eir,
    "eir-plus": Eir,
    "image-replay": ImageReplay,
    "dft": Dft,
    "lwf": Lwf,
    "ilt": Ilt,
    "mib": Mib,
    "mbs": Mbs,
    "plop": Plop,
    "dkd": Dkd,
    "ssul": Ssul,
    "star": Star,
    "cogamid": Cogamid,
}


def build_method(config: MethodConfig, context: Context) -> Method:
    """The method of a manifest's `method` section for one step. A shared base step is trained the same way for all methods."""
    if context.teacher is not None or config.base_step == "own":
        return METHODS[config.name](config, context)
    return (
        SharedBaseStep(METHODS[config.name](config, context), config, context)
        if config.leaves_state
        else Finetune(config, context)
    )


class SharedBaseStep(Finetune):
    """The shared base step of a method that leaves a state: trained like fine-tuning, ended by the method's own `end`."""

    def __init__(self, method: Method, config: MethodConfig, context: Context) -> None:
        super().__init__(config, context)
        self.method = method

    def end(self, model: DeepLab, calibration: CalibrationPass) -> MethodState:
        return self.method.end(model, calibration)
