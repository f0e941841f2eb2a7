"""What a recipe may hold, for editors: every recipe passes, what is wrong does not."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from eircli.config.schema import all_settings, recipe_schema
from eircli.config.tree import flatten
from eircli.run.run import open_run

CONFIGS = Path(__file__).parent.parent / "configs"
RECIPES = sorted(CONFIGS.glob("*.yaml"))


def valid(tree: Any) -> bool:
    return jsonschema.Draft202012Validator(recipe_schema()).is_valid(tree)


def test_the_file_beside_the_recipes_is_current() -> None:
    """`eir schema > configs/schema.json` makes it."""
    assert json.loads((CONFIGS / "schema.json").read_text()) == recipe_schema()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_names_it_and_passes(path: Path) -> None:
    assert "# yaml-language-server: $schema=schema.json" in path.read_text().splitlines()
    assert valid(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    "tree",
    [
        {"methd": {"name": "eir"}},
        {"method": {"name": "eirr"}},
        {"method": {"name": "eir", "treshold": 0.5}},
        {"memory": {"quality": 101}},
        {"dataset": {"kind": "shapes", "root": "x"}},
        {"runs": {"a": {"train": {"lr": -1}}}},
        {"runs": {"a": 3}},
        {"train": {"base": {"batch_size": 0}}},
    ],
)
def test_what_is_wrong_does_not_pass(tree: dict[str, Any]) -> None:
    assert not valid(tree)


def test_all_settings_are_the_manifest_s_keys_with_their_meaning() -> None:
    manifest = open_run(CONFIGS / "shapes-6-2-eir.yaml", look_only=True).manifest
    listed = all_settings(manifest)
    assert [one.key for one in listed] == list(flatten(manifest.model_dump()))
    assert all(one.meaning for one in listed if not one.key.endswith((".kind", "method.name")))
    paste = next(one for one in listed if one.key == "method.paste")
    assert (paste.words, paste.default) == ("mixup, hard", "mixup")
