"""From a recipe to a manifest: the paper's settings, the recipe, the overrides, in that order; clear errors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from eircli.errors import UserError
from eircli.explain import explain
from eircli.manifest import Manifest
from eircli.method_settings import implied_by

Tree = dict[str, Any]

LENGTHS = ("iterations", "epochs")

_VOC: Tree = {
    "data": {"crop_size": 512},
    "method": {"eir": {"slot": 250, "fillers_below": 2}},
    "memory": {"budget": 100},
    "train": {
        "epochs": 60,
        "batch_size": 24,
        "lr": 1e-4,
        "base": {"lr": 1e-3, "weight_decay_on": "all", "frozen_batchnorm": False, "dropout": True},
    },
}

_ADE20K: Tree = {
    "protocol": {"unseen_at_test": "ignore"},
    "data": {"crop_size": 512},
    "method": {"eir": {"slot": 200, "fillers_below": 1}},
    "memory": {"budget": 300},
    "train": {
        "epochs": 100,
        "batch_size": 24,
        "lr": 2.5e-4,
        "warmup": 0.2,
        "base": {"lr": 2.5e-3, "weight_decay_on": "all", "frozen_batchnorm": False, "dropout": True},
    },
}

PAPER: dict[str, Tree] = {"voc": _VOC, "ade20k": _ADE20K, "folder": _VOC, "shapes": _VOC}
"""What naming a data set implies beyond the fields' own defaults: the paper's settings (method §5, §6)."""

FREE_KEYS = ("runtime", "dataset.root", "dataset.class_index", "data.cache")
"""Keys that may differ between commands on one run: how and where it runs, not what it computes."""


def resolve(recipe: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "recipe") -> Manifest:
    """The manifest that a recipe and `key.path=value` overrides mean.

    Raises:
        UserError: one line naming `source` and the key, with the nearest valid key where one is unknown.
    """
    tree = _deep_copy(recipe)
    # Naming a method takes it whole, so what is set within it comes after.
    for override in sorted(overrides, key=lambda text: not text.startswith("method.name=")):
        _apply_override(tree, override)
    for section in ("dataset", "method", "protocol"):
        if not isinstance(tree.get(section), Mapping):
            raise UserError(
                f"{source}: {section}: {'missing' if section not in tree else 'must be a mapping'}; every recipe needs one"
            )
    kind, method = tree["dataset"].get("kind"), tree["method"].get("name")
    implied = _deep_copy(PAPER.get(kind, {}) if isinstance(kind, str) else {})
    implied["method"] = implied.get("method", {}).get(method, {}) if isinstance(method, str) else {}
    implied = merge(implied, _deep_copy(implied_by(method) if isinstance(method, str) else {}))
    _drop_length(implied.get("train", {}), tree.get("train", {}))
    tree = merge(implied, tree)
    _fill_base(tree)
    if kind == "shapes" and tree["dataset"].get("seed") is None:
        tree["dataset"]["seed"] = tree.get("seed", 0)
    try:
        return Manifest.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error.errors()[0])}") from None


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


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Manifest:
    """The manifest of a recipe file; its name is the file's unless the recipe has one.

    `like: FILE`, relative to the recipe, takes another recipe for what this one leaves out; another method takes the
    place of that recipe's method whole.
    """
    tree, files = load_yaml(path), [path]
    while "like" in tree:
        files.append(files[-1].parent / str(tree.pop("like")))
        if len(set(files)) < len(files):
            raise UserError(f"{path}: like: {files[-1].name} is like this recipe itself")
        below = load_yaml(files[-1])
        below.pop("name", None)
        if _names_another_method(below.get("method"), tree.get("method")):
            del below["method"]
        for part, given in ((below.get("train"), tree.get("train")), (_base(below), _base(tree))):
            if isinstance(part, dict):
                _drop_length(part, given)
        tree = merge(below, tree)
    return resolve({"name": path.stem, **tree}, overrides, str(path))


def _base(tree: Tree) -> Any:
    return tree["train"].get("base") if isinstance(tree.get("train"), Mapping) else None


def _names_another_method(below: Any, above: Any) -> bool:
    both = isinstance(below, Mapping) and isinstance(above, Mapping)
    return both and "name" in above and above["name"] != below.get("name")


def to_tree(manifest: Manifest) -> Tree:
    """The manifest as plain YAML-ready data."""
    return json.loads(manifest.model_dump_json())  # type: ignore[no-any-return]


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """Both trees, `above` winning where they meet."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a.b": 1}` for `{"a": {"b": 1}}`; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differing_keys(recorded: Manifest, wanted: Manifest) -> list[str]:
    """Keys in which two manifests differ, `FREE_KEYS` aside."""
    before, after = flatten(to_tree(recorded)), flatten(to_tree(wanted))
    keys = [key for key in before | after if before.get(key) != after.get(key)]
    return [key for key in keys if not any(key == free or key.startswith(free + ".") for free in FREE_KEYS)]


def fingerprint(manifest: Manifest) -> str:
    """A hash of what the run computes; equal exactly if `differing_keys` is empty."""
    return _hash(to_tree(manifest))


def seedless_fingerprint(manifest: Manifest) -> str:
    """The same of all but name and seed: equal for runs that are repetitions of one another."""
    tree = to_tree(manifest)
    return _hash(
        {key: value for key, value in tree.items() if key not in ("name", "seed")} | {"dataset": tree["dataset"] | {"seed": None}}
    )


def base_fingerprint(manifest: Manifest, base_classes: Sequence[int]) -> str:
    """A hash of all that the base step's checkpoint depends on; equal for runs whose base step is the same.

    The rest of the schedule matters only where it decides which images step 0 has: in the partitioned setting. How new
    classifiers start does not, nor does the method, unless it trains a base step of its own.
    """
    tree = to_tree(manifest)
    method, protocol, model = tree["method"], tree["protocol"], tree["model"]
    partitioned = protocol["setting"] == "partitioned"
    decides = {
        "seed": tree["seed"],
        "dataset": tree["dataset"],
        "data": tree["data"],
        "classes": list(base_classes),
        "images": {key: protocol[key] for key in (("setting", "schedule", "order") if partitioned else ("setting",))},
        "model": {key: value for key, value in model.items() if key not in ("new_classifier", "unknown_class")},
        "train": tree["train"]["base"],
        "method": method if method["base_step"] == "own" else {"positive_weight": method["positive_weight"]},
    }
    return _hash(decides)


def _hash(tree: Tree) -> str:
    kept = {k: v for k, v in flatten(tree).items() if not any(k == f or k.startswith(f + ".") for f in FREE_KEYS)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _apply_override(tree: Tree, override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"--set {override}: write key.path=value, such as --set train.iterations=200")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set {override}: the value is not valid YAML") from None
    node = tree
    for depth, key in enumerate(keys[:-1], start=1):
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise UserError(f"--set {override}: {'.'.join(keys[:depth])} is a value, not a section")
    if keys[0] == "train" and keys[-1] in LENGTHS and len(keys) <= 3:
        node.pop(LENGTHS[keys[-1] == LENGTHS[0]], None)
        if len(keys) == 2 and isinstance(node.get("base"), dict):
            node["base"] = {k: v for k, v in node["base"].items() if k not in LENGTHS}
    if keys == ["method", "name"] and node.get("name") != value:
        node.clear()  # another method's settings
    node[keys[-1]] = value


def _drop_length(implied: Tree, given: Any) -> None:
    """A recipe that gives one length takes the place of the implied other one."""
    if isinstance(given, Mapping) and any(key in given for key in LENGTHS):
        for key in LENGTHS:
            implied.pop(key, None)


def _fill_base(tree: Tree) -> None:
    """Complete `train.base`, the base step's settings, with those of `train`."""
    train = tree.get("train")
    if not isinstance(train, dict):
        return
    base = train.get("base", {})
    if isinstance(base, Mapping):
        inherited = {k: v for k, v in train.items() if k != "base"}
        if any(base.get(key) is not None for key in LENGTHS):
            inherited = {k: v for k, v in inherited.items() if k not in LENGTHS}
        train["base"] = inherited | dict(base)


def _deep_copy(tree: Any) -> Any:
    return {k: _deep_copy(v) for k, v in tree.items()} if isinstance(tree, Mapping) else tree
