"""State dicts of other programs, adapted to ours and checked against a network.

Known namings: torchvision's DeepLabV3 (`backbone.…`, `classifier.N.…`), and that of the public DKD and EIR releases
(`backbone.…`, `aspp.convs|project|last_conv.…`, `cls.N.…`); our own too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from eircli.common.errors import UserError
from eircli.model.deeplab import DeepLab

State = dict[str, Tensor]

TORCHVISION = [
    (r"backbone\.(.*)", r"backbone.{prefix}\1"),
    (r"classifier\.([012])\.(.*)", r"head.\1.\2"),
    (r"classifier\.4\.(.*)", r"all_classes.\1"),
]
DKD = [
    (r"backbone\.(.*)", r"backbone.{prefix}\1"),
    (r"aspp\.(convs|project)\.(.*)", r"head.0.\1.\2"),
    (r"aspp\.last_conv\.0\.(.*)", r"head.1.\1"),
    (r"aspp\.last_conv\.1\.(.*)", r"head.2.\1"),
    (r"cls\.(.*)", r"classifiers.\1"),
]
EIR = [(r"((backbone|head|classifiers|unknown)\..*)", r"\1")]

ADAPTERS = {"cls.0.": ("DKD / EIR", DKD), "classifiers.0.": ("eir", EIR), "classifier.4.": ("torchvision", TORCHVISION)}
"""Naming schemes by how they call the (first) classifier, in which they differ; `{prefix}` is `Backbone.prefix`."""


class Adapted(NamedTuple):
    """A state dict under the names of a network here."""

    naming: str
    state: State
    left_out: list[str]
    """Names in the file without a counterpart here."""


def adapt(path: Path, state: State, model: DeepLab) -> Adapted:
    """The state of a file under the names of a network.

    Raises:
        UserError: an unknown naming, or a backbone alone.
    """
    known = [naming for mark, naming in ADAPTERS.items() if any(name.startswith(mark) for name in state)]
    prefix, ours = model.backbone.prefix, model.backbone.state_dict()
    if not known and any(f"{prefix}{name.removeprefix('backbone.')}" in ours for name in state):
        raise UserError(f"{path}: holds a backbone without classifiers; to start a base step from it: --set model.weights={path}")
    if not known:
        names = ", ".join(sorted({name.split(".")[0] for name in state})[:8])
        raise UserError(f"{path}: neither torchvision's DeepLabV3 nor the naming of DKD and EIR; its names start with {names}")
    naming, rules = known[0]
    adapted, left_out = {}, []
    for name, tensor in state.items():
        match = next(((found, to) for pattern, to in rules if (found := re.fullmatch(pattern, name))), None)
        if match is None:
            left_out.append(name)
        else:
            adapted[match[0].expand(match[1].replace("{prefix}", prefix))] = tensor
    return Adapted(naming, adapted, left_out)


def split_classes(path: Path, state: State, steps: Sequence[Sequence[int]]) -> State:
    """A state with one classifier of all classes, its row k that of class id k, split into background's and each step's.

    Raises:
        UserError: the classifier has no row for a class, or no bias.
    """
    if "all_classes.bias" not in state:
        raise UserError(f"{path}: lacks classifier.4.bias")
    rows = len(state["all_classes.weight"])
    if (last := max(max(step) for step in steps)) >= rows:
        raise UserError(f"{path}: its classifier has {rows} rows, background included; there is none for class id {last}")
    split = {name: tensor for name, tensor in state.items() if not name.startswith("all_classes.")}
    for part in ("weight", "bias"):
        for number, ids in enumerate([[0], *steps]):
            split[f"classifiers.{number}.{part}"] = state[f"all_classes.{part}"][list(ids)]
    return split


def load_checked(path: Path, model: DeepLab, state: State) -> None:
    """Load an adapted state dict into a network, after checking all of it.

    Raises:
        UserError: a tensor is missing, of another shape, or unknown to the network.
    """
    wanted = model.state_dict()
    # `num_batches_tracked` is not needed for evaluation, and missing in old files.
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    if missing:
        raise UserError(f"{path}: lacks {missing[0]} and {len(missing) - 1} more of {len(wanted)} tensors; check model.backbone")
    if unknown := [name for name in state if name not in wanted]:
        raise UserError(
            f"{path}: has {unknown[0]} and {len(unknown) - 1} more that this network has not; check model.backbone and --step"
        )
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            ours, theirs = tuple(wanted[name].shape), tuple(tensor.shape)
            raise UserError(f"{path}: {name} is {theirs}, this run's network has {ours}; check model and protocol.schedule")
    model.load_state_dict(state, strict=False)
