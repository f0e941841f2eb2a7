"""Saving state atomically, and loading it without running code from the file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from eircli.common.errors import UserError
from eircli.common.io import atomic_write

State = dict[str, Any]

FORMAT = 1


def save_state(path: Path, state: State) -> None:
    """Write a state of tensors and plain data atomically."""
    buffer = io.BytesIO()
    torch.save({"eir_format": FORMAT, **state}, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def load_state(path: Path, recipe: str, remedy: str) -> State:
    """The state in a file, on the CPU.

    Args:
        recipe: the fingerprint the state must carry.
        remedy: what the user can do if it cannot be used, the end of the error's line.

    Raises:
        UserError: the file is missing, damaged, or of another recipe.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {remedy}") from None
    except Exception as error:  # torch.load raises many types on damaged files
        raise UserError(f"{path}: damaged ({type(error).__name__}); {remedy}") from None
    if not isinstance(state, dict) or state.get("eir_format") != FORMAT:
        raise UserError(f"{path}: is no checkpoint of eir; {remedy}")
    if state["recipe"] != recipe:
        raise UserError(f"{path}: is the checkpoint of another recipe; {remedy}")
    return state
