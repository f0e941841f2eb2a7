"""What a recipe may hold: as JSON Schema, for editors; and key by key, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from eircli.config.manifest import Manifest


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema of recipes and comparisons: the manifest's, of which a recipe may leave out anything that another one says."""
    schema = _optional(Manifest.model_json_schema())
    like = {"type": "string", "description": "Another recipe, relative to this one, that says what this one leaves out."}
    schema["properties"]["like"] = like
    run = {"anyOf": [{**schema, "properties": dict(schema["properties"])}, {"type": "null"}]}
    run["anyOf"][0].pop("$defs")
    schema["properties"]["runs"] = {
        "type": "object",
        "description": "Several runs, each what the file says in common and what stands under its name.",
        "additionalProperties": run,
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "A recipe of eir"}


def _optional(schema: Any) -> Any:
    """A schema that requires nothing; so a section without its name or kind may be of any that has its keys."""
    if isinstance(schema, list):
        return [_optional(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    renamed = {"anyOf" if key == "oneOf" else key: _optional(part) for key, part in schema.items()}
    return {
        key: part
        for key, part in renamed.items()
        if key not in ("required", "discriminator") or not isinstance(part, list | dict)
    }


class Setting(NamedTuple):
    """A key of a recipe."""

    key: str
    words: str
    """Those that it takes, if it takes words alone."""
    default: str
    meaning: str


def all_settings(manifest: Manifest) -> list[Setting]:
    """Every key, with its value in a manifest."""
    return list(_walk(manifest, ""))


def _walk(section: BaseModel, prefix: str) -> Iterator[Setting]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _walk(value, f"{prefix}{name}.")
        else:
            shown = "none" if value is None else str(list(value) if isinstance(value, tuple) else value)
            yield Setting(prefix + name, _words(field), shown, " ".join((field.description or "").split()))


def _words(field: FieldInfo) -> str:
    """The words that a field takes, if it takes words alone."""
    parts = (field.annotation, *get_args(field.annotation))
    words = [str(value) for part in parts for value in get_args(part) if isinstance(value, str)]
    return ", ".join(dict.fromkeys(words))
