"""What pydantic finds wrong with a recipe, said in one line: the dotted key, what is wrong, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from eircli.common.suggest import did_you_mean


def key_path(error: ErrorDetails, root: type[BaseModel]) -> str:
    """The dotted key that a validation error of a `root` is about."""
    return ".".join(_walk(error["loc"], root)[1])


def explain(error: ErrorDetails, root: type[BaseModel]) -> str:
    """One line for a validation error of a tree that should be a `root`: the dotted key, what is wrong, what to do."""
    section, keys = _walk(error["loc"], root)
    path = ".".join(keys)
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key {path}; {_suggestion(keys, section, root)}"
        case "missing":
            return f"{path}: missing; every recipe needs it"
        case "union_tag_invalid" | "union_tag_not_found":
            tag = str(error["ctx"]["discriminator"]).strip("'")
            allowed = [str(option).strip(" '") for option in str(error["ctx"].get("expected_tags", "")).split(",")]
            given = error["ctx"].get("tag")
            hint = did_you_mean(str(given), allowed)
            known = f"one of {', '.join(allowed)}" if allowed != [""] else "missing"
            return f"{path}.{tag}: {f'{given!r} is unknown; {hint}' if given else ''}{known}"
        case "value_error":
            return f"{path + ': ' if path else ''}{error['ctx']['error']}"
        case _:
            message = error["msg"][0].lower() + error["msg"][1:]
            return f"{path}: {message}, got {error['input']!r}"


def _walk(location: Iterable[int | str], root: type[BaseModel]) -> tuple[type[BaseModel], list[str]]:
    """The section an error lies in, and its key path without the tags that pydantic puts in for unions."""
    section = root
    keys: list[str] = []
    options: list[type[BaseModel]] = []
    for part in location:
        tagged = [
            s
            for s in options
            if part in {a for f in ("kind", "name") if f in s.model_fields for a in get_args(s.model_fields[f].annotation)}
        ]
        if tagged:
            section, options = tagged[0], []
            continue
        keys.append(str(part))
        field = section.model_fields.get(str(part))
        options = _sections(field.annotation) if field else []
        if len(options) == 1:
            section, options = options[0], []
    return section, keys


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]


def _suggestion(keys: Sequence[str], section: type[BaseModel], root: type[BaseModel]) -> str:
    prefix = ".".join(keys[:-1])
    siblings = list(section.model_fields)
    if near := difflib.get_close_matches(keys[-1], siblings, 1, cutoff=0.6):
        return f"did you mean {prefix + '.' if prefix else ''}{near[0]}?"
    if not prefix and (elsewhere := [path for path in _all_paths(root) if path.rsplit(".", 1)[-1] == keys[-1]]):
        return f"did you mean {elsewhere[0]}?"
    tags = [get_args(section.model_fields[tag].annotation) for tag in ("kind", "name") if tag in section.model_fields]
    named = next((f" {values[0]}" for values in tags if values), "")
    return f"{prefix or 'a recipe'}{named} has: {', '.join(siblings)}"


def _all_paths(section: type[BaseModel], prefix: str = "") -> list[str]:
    paths = []
    for name, field in section.model_fields.items():
        paths.append(prefix + name)
        for inner in _sections(field.annotation):
            paths += _all_paths(inner, f"{prefix}{name}.")
    return paths
