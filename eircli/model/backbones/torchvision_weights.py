"""ImageNet weights of torchvision's backbones, fetched once and kept in torch's cache."""

from __future__ import annotations

from typing import cast
from urllib.error import URLError

import torchvision
from torch import Tensor
from torch.hub import load_state_dict_from_url

from eircli.common.errors import UserError
from eircli.config.backbones import BACKBONES


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """The state dict, tensors of any shape, of the weights that the table of backbones names.

    Raises:
        UserError: they cannot be fetched.
    """
    url = torchvision.models.get_weight(BACKBONES[name].weights).url
    try:
        return cast(dict[str, Tensor], load_state_dict_from_url(url, check_hash=True, weights_only=True))
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"model.weights: could not fetch the ImageNet weights of {name} ({error}); connect, or give a state-dict file, or none"
        ) from None
