"""What is wrong or odd in a data set as a whole, judged by all its images together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from eircli.common.types import BACKGROUND, IGNORE
from eircli.data.check.examine import Examined, Pixels
from eircli.data.check.report import Finding

BACKGROUND_NAMES = {"background", "_background_", "__background__", "bg", "unlabeled", "unlabelled"}
"""What background is called where it is listed as a class."""


@dataclass(frozen=True)
class Part:
    """The images of training or of testing, and what was found in them."""

    name: str
    ids: Sequence[str]
    places: Sequence[str]
    """The file of each, or what stands for it."""
    examined: Sequence[Examined]

    def pixels(self) -> Pixels:
        """int64 [images, 256], pixels of each of the data set's ids; none of images that could not be counted."""
        none = np.zeros(256, np.int64)
        return np.stack([none, *(none if e.pixels is None else e.pixels for e in self.examined)])[1:]


def oddities(train: Part, test: Part, classes: Sequence[str], file_classes: int | None) -> Iterator[Finding]:
    """All that is wrong or odd beyond single files.

    Args:
        classes: the names of the classes 1, 2, …
        file_classes: how many class ids the label files may hold; None where there are no such files.
    """
    yield from _background_among(classes)
    raw = sum((e.raw for part in (train, test) for e in part.examined if e.raw is not None), np.zeros(256, np.int64))
    if file_classes is not None:
        yield from _shifted(raw, file_classes)
    yield from _never(train, test, classes)
    for part in (train, test):
        yield from _empty(part)
    yield from _shared(train, test)


def _background_among(classes: Sequence[str]) -> Iterator[Finding]:
    for position, name in enumerate(classes):
        if name.lower() in BACKGROUND_NAMES:
            message = f"is class {position + 1}: background is id 0 and is not listed; take this name out of the classes"
            yield Finding("oddity" if position else "error", f"class '{name}'", message)


def _shifted(raw: Pixels, count: int) -> Iterator[Finding]:
    """Ids that look one too large or one too small; they cannot be told for sure."""
    present = set(np.flatnonzero(raw).tolist()) - {IGNORE}
    if BACKGROUND not in present and max(present, default=0) == count + 1:
        yield Finding(
            "oddity",
            "labels",
            f"id 0 never occurs and {count + 1} does: are all ids one too large, background being 1 in the files?",
        )
    if count > 1 and BACKGROUND in present and present == set(range(count)):
        yield Finding(
            "oddity",
            "labels",
            f"id {count} never occurs, all from 0 to {count - 1} do: are all ids one too small, the first class being 0 in the files?",
        )


def _never(train: Part, test: Part, classes: Sequence[str]) -> Iterator[Finding]:
    counts = [part.pixels().sum(axis=0) for part in (train, test)]
    for class_id, name in enumerate(classes, start=1):
        missing = [part.name for part, count in zip((train, test), counts, strict=True) if not count[class_id]]
        if missing:
            yield Finding("oddity", f"class '{name}'", f"(id {class_id}) never occurs in the {' and the '.join(missing)} images")


def _empty(part: Part) -> Iterator[Finding]:
    for place, examined in zip(part.places, part.examined, strict=True):
        # By the ids in the file: that a recipe takes some of the classes only is no oddity of the images.
        if examined.pixels is not None and examined.raw is not None and not examined.raw[BACKGROUND + 1 : IGNORE].any():
            yield Finding("oddity", place, "holds no class, only background and ignored pixels")


def _shared(train: Part, test: Part) -> Iterator[Finding]:
    """Test images that are training images too: by their content, or by their name alone."""
    content = {e.digest: place for e, place in zip(train.examined, train.places, strict=True) if e.digest}
    names = dict(zip(train.ids, train.places, strict=True))
    for name, place, examined in zip(test.ids, test.places, test.examined, strict=True):
        if examined.digest and examined.digest in content:
            yield Finding("error", place, f"is the same picture as the training image {content[examined.digest]}; take one out")
        elif name in names and names[name] != place:
            yield Finding("oddity", place, f"has the name of a training image, {names[name]}, but another content")
        elif name in names:
            yield Finding("error", place, "is a training image and a test image; take it out of one list")
