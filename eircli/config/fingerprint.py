"""Hashes of the settings that determine a result: all of them, without the seed, of the base step alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eircli.config.tree import Tree, flatten

if TYPE_CHECKING:
    from eircli.config.manifest import Manifest

FREE_KEYS = ("runtime", "dataset.root", "dataset.class_index", "dataset.data.root", "dataset.before", "data.cache")
"""Keys that may differ between commands on one run: how and where it runs, not what it computes."""


def to_tree(manifest: Manifest) -> Tree:
    """The manifest as plain YAML-ready data."""
    return json.loads(manifest.model_dump_json())  # type: ignore[no-any-return]


def differing_keys(recorded: Manifest, wanted: Manifest) -> list[str]:
    """Keys in which two manifests differ, `FREE_KEYS` aside."""
    before, after = flatten(to_tree(recorded)), flatten(to_tree(wanted))
    keys = [key for key in before | after if before.get(key) != after.get(key)]
    return [key for key in keys if not any(key == free or key.startswith(free + ".") for free in FREE_KEYS)]


def fingerprint(manifest: Manifest) -> str:
    """A hash of what the run computes; equal exactly if `differing_keys` is empty."""
    return _hash(to_tree(manifest))


def seedless_fingerprint(manifest: Manifest) -> str:
    """The same without name and seed: equal for runs that differ in name and seed only."""
    tree = to_tree(manifest)
    return _hash(
        {key: value for key, value in tree.items() if key not in ("name", "seed")} | {"dataset": tree["dataset"] | {"seed": None}}
    )


def base_fingerprint(manifest: Manifest, base_classes: Sequence[int], reserved: int = 0) -> str:
    """A hash of all that the base step's checkpoint depends on; equal for runs whose base step is the same.

    The rest of the schedule matters only where it decides which images step 0 has: in the partitioned setting. How new
    classifiers start does not, nor does the method, unless it trains a base step of its own or leaves a state at its end.

    Args:
        reserved: how many classes of later steps have their classifiers already.
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
        "method": method
        if method["base_step"] == "own" or manifest.method.leaves_state
        else {"positive_weight": method["base_positive_weight"]},
    }
    return _hash(decides | {"reserved": reserved} if reserved else decides)


def _hash(tree: Tree) -> str:
    kept = {k: v for k, v in flatten(tree).items() if not any(k == f or k.startswith(f + ".") for f in FREE_KEYS)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
