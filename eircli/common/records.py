"""Results as frozen dataclasses, serialised to JSON and parsed back with validation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import TypeAdapter

RecordT = TypeVar("RecordT")


def to_json(record: DataclassInstance | Mapping[str, object], indent: int | None = None) -> str:
    """A dataclass, or a mapping of such, as JSON text, fields in their order."""
    return json.dumps(record, default=asdict, indent=indent)


def from_json(kind: type[RecordT], text: str) -> RecordT:
    """The dataclass in a JSON text.

    Raises:
        ValueError: no JSON, or a field is missing or of another type.
    """
    parser = _adapter(cast(Any, kind))  # mypy takes no type variable for hashable
    return cast(RecordT, parser.validate_json(text))


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """The parser of a type, which takes milliseconds to make."""
    from pydantic import TypeAdapter  # the help of the command needs none of it

    return TypeAdapter(kind)
