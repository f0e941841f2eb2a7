"""Loading tensors from untrusted checkpoint files, without executing code from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eircli.common.errors import UserError

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model")
"""Keys under which training programs store the state dict in a checkpoint."""


class Loaded(NamedTuple):
    """The content of a checkpoint file."""

    tensors: dict[str, Tensor]
    class_ids: list[int] | None
    """The classes in the order learned, where the file is a checkpoint of eir."""


def load_tensors(path: Path) -> Loaded:
    """The state dict in a checkpoint file, torch's or .safetensors, unwrapped, without the prefix `module.` of DDP.

    Raises:
        UserError: missing, damaged, needs code to load, or holds no tensors.
    """
    try:
        content: Any = (
            _safetensors(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
        )
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # torch.load raises many types on damaged files
        reason = "it holds more than tensors and plain data" if "weights_only" in str(error).lower() else type(error).__name__
        raise UserError(
            f"{path}: cannot be loaded safely ({reason}); give a file with the state dict alone, as torch.save(model.state_dict(), FILE) writes it"
        ) from None
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds no state dict")
    class_ids = content.get("class_ids")
    for key in WRAPPERS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    tensors = {str(name).removeprefix("module."): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path}: holds no state dict")
    return Loaded(tensors, class_ids)


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(f"{path}: .safetensors files need the package safetensors; install it, or the extra timm") from None
    return load_file(path)
