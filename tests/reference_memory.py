"""A slow and obvious account of what a step's memory holds: the oracle that the program's banks are held against.

Plain loops over pixels, images and turns; nothing is shared with the package but its words for labels. Only the rule
`largest` leaves nothing to chance, so only it is told here. "Memory" is eircli/memory/README.md, "Method" the method's description.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from eircli.common.types import BACKGROUND, IGNORE, UInt8Array

Pixel = tuple[int, int]
Labels = Mapping[str, UInt8Array]
"""Image id → uint8 [H, W], its true class ids at the working size; in the order of the data set."""
Steps = Sequence[Sequence[int]]
"""The class ids that each step learns."""
Supply = dict[int, list["Candidate"]]
"""Class id → some of its candidates. Classes stand in the order learned."""
Cost = Callable[["Candidate"], int]
"""What keeping a candidate takes of the budget."""


@dataclass(frozen=True)
class Candidate:
    """What may be kept for a class."""

    class_id: int
    source: str
    area: int
    step: int
    pixels: frozenset[Pixel] = field(repr=False)
    """Row and column of the pixels that count: an instance's; in a whole image all of the class."""


def one(_: Candidate) -> int:
    """The cost under a budget that counts exemplars."""
    return 1


def trained_on(labels: Labels, steps: Steps, step: int, setting: str) -> list[str]:
    """The images of a step: those with a class that it learns and, if `disjoint`, without any that is learned later (Method §1)."""
    learned = {class_id for classes in steps[: step + 1] for class_id in classes}
    chosen = []
    for source, label in labels.items():
        holds = {int(pixel) for row in label for pixel in row} - {BACKGROUND, IGNORE}
        if not holds & set(steps[step]):
            continue
        if setting == "disjoint" and holds - learned:
            continue
        chosen.append(source)
    return chosen


def visible(label: UInt8Array, classes: Sequence[int]) -> list[list[int]]:
    """What a step sees of a label: any class but its own `classes` is background (Method §1)."""
    return [[int(pixel) if pixel in (*classes, BACKGROUND, IGNORE) else BACKGROUND for pixel in row] for row in label]


def components(pixels: frozenset[Pixel]) -> list[frozenset[Pixel]]:
    """The connected components, by flood fill: a pixel has eight neighbours. From the top row down, in a row from the left."""
    found: list[frozenset[Pixel]] = []
    for start in sorted(pixels):
        if any(start in part for part in found):
            continue
        part, wave = {start}, [start]
        while wave:
            row, column = wave.pop()
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    neighbour = row + down, column + right
                    if neighbour in pixels and neighbour not in part:
                        part.add(neighbour)
                        wave.append(neighbour)
        found.append(frozenset(part))
    return found


def candidates(kind: str, labels: Labels, steps: Steps, step: int, setting: str, selection: str, min_area: int) -> Supply:
    """What the images of a step offer of the classes that it learns, image after image (Memory, Candidates).

    Args:
        kind: "instances" or "images".
        selection: which instances: "single-component", or "component" for all parts of at least `min_area` pixels.
    """
    supply: Supply = {class_id: [] for class_id in steps[step]}
    for source in trained_on(labels, steps, step, setting):
        seen = visible(labels[source], steps[step])
        for class_id in steps[step]:
            whole = frozenset((r, c) for r, row in enumerate(seen) for c, pixel in enumerate(row) if pixel == class_id)
            if not whole:
                continue
            if kind == "images":
                offered = [whole]
            elif selection == "single-component":
                offered = [whole] if len(components(whole)) == 1 else []
            else:
                offered = [part for part in components(whole) if len(part) >= min_area]
            supply[class_id] += [Candidate(class_id, source, len(part), step, part) for part in offered]
    return supply


def largest_first(offered: Sequence[Candidate]) -> list[Candidate]:
    """The largest first; of equal ones, that which was offered first."""
    ranked: list[Candidate] = []
    for candidate in offered:
        place = len(ranked)
        while place > 0 and ranked[place - 1].area < candidate.area:
            place -= 1
        ranked.insert(place, candidate)
    return ranked


def share_out(kind: str, ranked: Supply, budget: int, cost: Cost) -> Supply:
    """The classes take turns, each taking its best candidate that still fits, until none can (Memory, Budget).

    An image that is a candidate of several classes is kept once, whichever step's labels it has, for the class that takes it
    first. Of images the rarest class, that with the fewest candidates, goes first in every round; of instances, and among
    equally rare classes, the one learned first.
    """
    order = list(ranked)
    if kind == "images":
        order.sort(key=lambda class_id: len(ranked[class_id]))
    kept: Supply = {class_id: [] for class_id in ranked}
    left, gone = budget, set()
    while True:
        passed = 0
        for class_id in order:
            for candidate in ranked[class_id]:
                identity = candidate.source if kind == "images" else candidate
                if identity not in gone and cost(candidate) <= left:
                    kept[class_id].append(candidate)
                    gone.add(identity)
                    left -= cost(candidate)
                    break
            else:
                passed += 1
        if passed == len(order):
            return kept


def next_bank(kind: str, before: Supply, offered: Supply, budget: int, cost: Cost = one) -> Supply:
    """A step's bank: of old classes from what the bank before holds, in its order; of those just learned from the images."""
    ranked = {**before, **{class_id: largest_first(some) for class_id, some in offered.items()}}
    return share_out(kind, ranked, budget, cost)
