"""The nearest known name, for messages about unknown ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A question that ends a sentence or stands before a list of what is known; empty if nothing is near.

    Example:
        >>> did_you_mean("shep", ["cow", "sheep"])
        'did you mean sheep? '
    """
    near = difflib.get_close_matches(given, list(known), 1)
    return f"did you mean {near[0]}? " if near else ""
