"""From a recipe to a manifest: the paper's settings, the recipe, the overrides, in that order; clear errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from eircli.common.errors import UserError
from eircli.common.suggest import did_you_mean
from eircli.config.datasets import DatasetSettings, dataset_settings
from eircli.config.explain import explain, key_path
from eircli.config.manifest import Manifest, StepTraining
from eircli.config.methods import method_settings
from eircli.config.section import MethodSettings
from eircli.config.tree import Tree, deep_copy, load_yaml, merge

LENGTHS = ("iterations", "epochs")


def resolve(recipe: Mapping[str, object], overrides: Sequence[str] = (), source: str = "recipe") -> Manifest:
    """The manifest that a recipe and `key.path=value` overrides mean.

    Raises:
        UserError: one line naming `source` and the key, with the nearest valid key where one is unknown.
    """
    tree = deep_copy(recipe)
    for override in _in_order(overrides):
        _apply_override(tree, override)
    for section in ("dataset", "method", "protocol"):
        if not isinstance(tree.get(section), Mapping):
            raise UserError(
                f"{source}: {section}: {'missing' if section not in tree else 'must be a mapping'}; every recipe needs one"
            )
    dataset, method = dataset_settings(tree["dataset"].get("kind")), method_settings(tree["method"].get("name"))
    implied = _implied(dataset, method, tree["method"])
    _drop_length(implied.get("train", {}), tree.get("train", {}))
    tree = merge(implied, tree)
    _fill_base(tree)
    if dataset is not None and "seed" in dataset.model_fields and tree["dataset"].get("seed") is None:
        tree["dataset"]["seed"] = tree.get("seed", 0)  # a data set that is drawn is drawn from the run's seed
    try:
        return Manifest.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        about = key_path(first, Manifest)
        # Of several for one key the last holds; an error of a whole section is blamed on what was set in it last.
        given = next((f"--set {o}" for o in reversed(overrides) if f"{_key(o)}.".startswith(f"{about}.")), source)
        raise UserError(f"{given}: {explain(first, Manifest)}") from None


def _implied(dataset: type[DatasetSettings] | None, method: type[MethodSettings] | None, given: Mapping[str, object]) -> Tree:
    """What naming a data set and a method sets, unless the recipe does: the paper's setting.

    Args:
        given: the recipe's `method` section.
    """
    implied: Tree = deep_copy(dataset.implies) if dataset else {}
    named, own = (implied.pop(part, {}).get(given.get("name"), {}) if method else {} for part in ("method", "own_base_step"))
    implied["method"] = {**named, **own} if given.get("base_step") == "own" else named
    return merge(implied, deep_copy(method.implies)) if method else implied


def load_recipe(target: Path, overrides: Sequence[str] = ()) -> Manifest:
    """The manifest of a recipe file, or of one run of a comparison (`FILE:RUN`); it is named after them unless it has a name.

    `like: FILE`, relative to the recipe, takes another recipe for what this one leaves out; another method takes the
    place of that recipe's method whole.

    Raises:
        UserError: a file that is missing, no recipe, a whole comparison, or like itself; or what `resolve` finds wrong.
    """
    tree, targets = _read(target), [target]
    name = tree.pop("name", target.stem)
    while "like" in tree:
        targets.append(targets[-1].parent / str(tree.pop("like")))
        if len(set(targets)) < len(targets):
            raise UserError(f"{target}: like: {targets[-1].name} is like this recipe itself")
        below = _read(targets[-1])
        below.pop("name", None)
        tree = _on_top(below, tree)
    return resolve({"name": name, **tree}, overrides, str(target))


def recipes_in(target: Path) -> list[Path]:
    """What a target stands for: every run of a comparison as `FILE:RUN`; anything else is itself."""
    if not target.is_file():
        return [target]
    tree = load_yaml(target)
    return [Path(f"{target}:{run}") for run in _runs(target, tree)] if "runs" in tree else [target]


def recipe_file(target: Path) -> tuple[Path, str | None]:
    """The file of a target, and the run it names where it is `FILE:RUN`."""
    file, colon, run = str(target).rpartition(":")
    return (Path(file), run) if colon and not target.exists() else (target, None)


def _read(target: Path) -> Tree:
    """The mapping of a recipe file, or of one run of a comparison, which is named after both."""
    file, run = recipe_file(target)
    tree = load_yaml(file)
    if run is None and "runs" in tree:
        names = ", ".join(_runs(file, tree))
        raise UserError(
            f"{file}: holds several runs; name one, as {file}:RUN, of {names}; eir run-protocol, compare and sweep take all"
        )
    if run is None:
        return tree
    runs = _runs(file, tree)
    if not runs:
        raise UserError(f"{target}: {file} is one recipe, not a comparison; leave out :{run}")
    if run not in runs:
        raise UserError(f"{file}: has no run {run}; {did_you_mean(run, runs)}it has {', '.join(runs)}")
    common = {key: value for key, value in tree.items() if key != "runs"}
    return {"name": f"{file.stem}-{run}", **_on_top(common, runs[run])}


def _runs(file: Path, tree: Tree) -> dict[str, Tree]:
    """The runs of a comparison: name → what it changes."""
    runs = tree.get("runs", {})
    if not isinstance(runs, dict) or not all(isinstance(changes, dict | None) for changes in runs.values()):
        raise UserError(f"{file}: runs: must map the name of every run to its settings")
    return {str(run): changes or {} for run, changes in runs.items()}


def _on_top(below: Tree, above: Tree) -> Tree:
    """Both recipes, `above` winning; another method or length of `above` takes the place of that of `below` whole."""
    below = deep_copy(below)
    if _names_another_method(below.get("method"), above.get("method")):
        del below["method"]
    for part, given in ((below.get("train"), above.get("train")), (_base(below), _base(above))):
        if isinstance(part, dict):
            _drop_length(part, given)
    return merge(below, above)


def _base(tree: Tree) -> Any:
    return tree["train"].get("base") if isinstance(tree.get("train"), Mapping) else None


def _names_another_method(below: Any, above: Any) -> bool:
    both = isinstance(below, Mapping) and isinstance(above, Mapping)
    return both and "name" in above and above["name"] != below.get("name")


def _in_order(overrides: Sequence[str]) -> list[str]:
    """The overrides as they are applied: what names a method first, and a length of all steps before one of the base step.

    Raises:
        UserError: both lengths of one step.
    """
    keys = [_key(override) for override in overrides if override.partition("=")[2].strip() not in ("null", "~", "")]
    for section in ("train.", "train.base."):
        if all(section + length in keys for length in LENGTHS):
            raise UserError(f"--set {section}{LENGTHS[0]} and {section}{LENGTHS[1]}: give one of them")
    ranks = {"method.name": 0, **{f"train.{length}": 1 for length in LENGTHS}}
    return sorted(overrides, key=lambda override: ranks.get(_key(override), 2))


def _key(override: str) -> str:
    return override.partition("=")[0].strip()


def _apply_override(tree: Tree, override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"--set {override}: write key.path=value, such as --set train.iterations=200")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set {override}: the value is not valid YAML") from None
    if isinstance(value, dict) and not text.lstrip().startswith("{"):
        value = text.strip()  # such as timm:NAME, which YAML takes for a mapping if a blank follows the colon
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
        inherited = {k: v for k, v in train.items() if k in StepTraining.model_fields}  # what is unknown is said of `train` alone
        if any(base.get(key) is not None for key in LENGTHS):
            inherited = {k: v for k, v in inherited.items() if k not in LENGTHS}
        train["base"] = inherited | dict(base)
