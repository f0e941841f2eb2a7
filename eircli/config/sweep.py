"""`eir sweep`: a recipe under every combination of some keys' values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from eircli.common.errors import UserError
from eircli.config.fingerprint import differing_keys
from eircli.config.recipe import load_recipe, recipe_file
from eircli.config.tree import load_yaml

Variant = list[str]
"""Overrides; they include the variant's name unless it is the recipe itself."""


def parse_grid(grid: str) -> tuple[str, list[Any]]:
    """A key and its values from `key=a,b,c`; values are YAML, so lists and mappings go in brackets.

    Raises:
        UserError: not of that form.
    """
    key, equals, text = grid.partition("=")
    try:
        values = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError:
        values = []
    if not equals or not key.strip() or not values:
        raise UserError(f"--grid {grid}: write key.path=value,value,…, such as --grid method.threshold=0.5,0.7,0.9")
    if key.strip() == "seed":
        raise UserError(f"--grid {grid}: seeds are repetitions of a setting; give --seeds {text}")
    return key.strip(), values


def variants(recipe: Path, grids: Sequence[str], overrides: Sequence[str]) -> list[Variant]:
    """The overrides of every combination, all of them checked.

    A combination that changes nothing is the recipe itself, under its own name and in its own run directory.
    """
    if recipe.is_dir() or "steps" in load_yaml(recipe_file(recipe)[0]):
        raise UserError(f"{recipe}: is a run, which has its settings already; give eir sweep a recipe")
    parsed = [parse_grid(grid) for grid in grids]
    plain = load_recipe(recipe, overrides)
    found = []
    for values in product(*(values for _, values in parsed)):
        pairs = [(key, _as_yaml(value)) for (key, _), value in zip(parsed, values, strict=True)]
        changes = [*overrides, *(f"{key}={value}" for key, value in pairs)]
        try:
            changed = load_recipe(recipe, changes)
        except UserError as error:
            raise UserError(f"{recipe}: {str(error).replace('--set', '--grid', 1)}") from None
        if differing_keys(plain, changed):
            changes.append(f"name={_quoted(','.join([plain.name, *(_label(*pair) for pair in pairs)]))}")
        found.append(changes)
    return found


def _label(key: str, value: str) -> str:
    """A filesystem-safe label of a setting."""
    plain = re.sub(r"[^\w.+-]+", "_", value).strip("_")
    return plain if key == "method.name" else f"{key.removeprefix('method.')}={plain}"


def _quoted(text: str) -> str:
    """The text as a quoted YAML scalar."""
    return str(yaml.safe_dump(text, default_style='"', width=10**6)).strip()


def _as_yaml(value: Any) -> str:
    """A value on one line."""
    dumped = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return str(dumped).removesuffix("...\n").strip()
