"""Loading, merging, flattening and copying nested settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from eircli.common.errors import UserError

Tree = dict[str, Any]


def load_yaml(path: Path) -> Tree:
    """The mapping in a YAML file."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: not a recipe: expected `key: value` lines")
    return tree


def merge(below: Mapping[str, object], above: Mapping[str, object]) -> Tree:
    """Both trees, `above` winning where they meet."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def flatten(tree: Mapping[str, object], prefix: str = "") -> Tree:
    """`{"a.b": 1}` for `{"a": {"b": 1}}`; lists are values."""
    flat: Tree = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def deep_copy(tree: Any) -> Any:
    """A copy of a tree that shares no mapping with it."""
    return {k: deep_copy(v) for k, v in tree.items()} if isinstance(tree, Mapping) else tree
