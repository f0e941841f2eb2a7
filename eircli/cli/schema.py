"""`eir schema`."""

from __future__ import annotations

EXAMPLE = "eir schema > schema.json"


def command() -> None:
    """Print the JSON Schema of recipes, by which editors complete and check them."""
    import json

    from eircli.config.schema import recipe_schema

    print(json.dumps(recipe_schema(), indent=1, ensure_ascii=False))
