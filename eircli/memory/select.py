"""Selection: rules that rank the candidates of a class, and a budget shared out among the classes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

ClassT = TypeVar("ClassT", bound=Hashable)


class Score(NamedTuple):
    """A candidate under a model."""

    confidence: float
    """The mean probability of the candidate's class over its pixels."""
    feature: NDArray[np.float32]
    """float [C], of length 1: the mean feature over its pixels."""


class Pool(NamedTuple):
    """The candidates of one class as the rules see them. Confidence and features are 0 and empty unless the rule needs a model."""

    area: NDArray[np.float64]
    """Pixels of each candidate."""
    confidence: NDArray[np.float64]
    """The model's mean probability of the class over the candidate's pixels."""
    features: NDArray[np.float64]
    """[candidates, channels]: the model's mean feature over the candidate's pixels, of length 1."""


Ranking = NDArray[np.intp]
"""Positions in a pool, the first choice first."""

MAX_TRIES = 16
"""How many further candidates of a class are tried when one exceeds what is left of a budget; each must be encoded to know its size."""


def random(pool: Pool, generator: np.random.Generator) -> Ranking:
    """A uniformly random order (methods/README.md §4)."""
    return generator.permutation(len(pool.area))


def largest(pool: Pool, generator: np.random.Generator) -> Ranking:
    """By area."""
    return np.argsort(-pool.area, kind="stable")


def confident(pool: Pool, generator: np.random.Generator) -> Ranking:
    """By the model's confidence."""
    return np.argsort(-pool.confidence, kind="stable")


def diverse(pool: Pool, generator: np.random.Generator) -> Ranking:
    """Farthest first: from the candidate nearest to the class's mean on, each the farthest from all before it.

    Distances are cosine distances of features (Gonzalez' traversal, 1985: within a factor of 2 of the best cover).
    """
    count = len(pool.features)
    if count == 0:
        return np.zeros(0, np.intp)
    order = [int(np.argmax(pool.features @ pool.features.mean(axis=0)))]
    nearest = 1 - pool.features @ pool.features[order[0]]
    taken = np.zeros(count, bool)
    for _ in range(count - 1):
        taken[order[-1]] = True
        order.append(int(np.argmax(np.where(taken, -np.inf, nearest))))
        nearest = np.minimum(nearest, 1 - pool.features @ pool.features[order[-1]])
    return np.array(order, np.intp)


RULES: dict[str, Callable[[Pool, np.random.Generator], Ranking]] = {
    "random": random,
    "largest": largest,
    "confident": confident,
    "diverse": diverse,
}


def share_out(
    ranked: Mapping[ClassT, Sequence[int]],
    budget: int,
    cost: Callable[[ClassT, int], int] = lambda name, item: 1,
    identity: Callable[[ClassT, int], Hashable] = lambda name, item: (name, item),
) -> dict[ClassT, list[int]]:
    """What each class keeps of its ranked items under one budget: as even as the supply allows, until nothing more fits.

    The classes take turns, each taking its best item that nobody has yet and that still fits; a class with none left drops
    out and leaves its share to the others. What the last round cannot give to all goes to the classes that come first.

    Args:
        cost: of an item, in the budget's unit; 1 counts items.
        identity: of an item; items of one identity, such as an image ranked for each of its classes, are kept once.

    Example:
        >>> share_out({"cat": [7, 8, 9], "dog": [4]}, budget=3)
        {'cat': [7, 8], 'dog': [4]}
    """
    kept: dict[ClassT, list[int]] = {name: [] for name in ranked}
    waiting = {name: iter(items) for name, items in ranked.items()}
    taken: set[Hashable] = set()
    left = budget
    while waiting and left > 0:
        for name in list(waiting):
            free = (item for item in waiting[name] if identity(name, item) not in taken)
            found = next((item for item in islice(free, 1 + MAX_TRIES) if cost(name, item) <= left), None)
            if found is None:
                del waiting[name]
                continue
            kept[name].append(found)
            taken.add(identity(name, found))
            left -= cost(name, found)
    return kept
