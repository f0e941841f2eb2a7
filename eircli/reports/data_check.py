"""`eir check-data`: a recipe's data set, read whole."""

from __future__ import annotations

from collections.abc import Iterator

from eircli.common.progress import track
from eircli.common.types import BACKGROUND, IGNORE, Split
from eircli.data.check.examine import examine
from eircli.data.check.oddities import Part, oddities
from eircli.data.check.report import ClassCounts, DataReport, Finding, PartCounts, StepCounts, error_of, oddity_of
from eircli.data.files import FileSplit
from eircli.data.open import open_complaining, remarks
from eircli.data.part import held_out
from eircli.data.workers import for_each_image
from eircli.run.run import Run

MIN_IMAGES_FOR_WORKERS = 100
"""Splits with fewer images are read in this process."""


def check_data(run: Run) -> DataReport:
    """Read every image and label of a recipe's data set once, and count and judge what is there.

    Raises:
        UserError: there is no data set to speak of, or the recipe's schedule does not fit its classes.
    """
    _ = run.schedule  # whether it fits is known before an image is read
    findings: list[Finding] = []
    data = open_complaining(run.manifest.dataset, lambda error: findings.append(error_of(error)))
    findings += [oddity_of(line) for line in remarks(run.manifest.dataset, data)]
    train = _examined("training", data.train, run.workers)
    if (every := run.manifest.dataset.hold_out) is not None:
        held = held_out(len(data.train), every)
        test = _some(train, "test", list(held))
        train = _some(train, "training", [position for position in range(len(data.train)) if position not in held])
    else:
        test = _examined("test", data.val, run.workers)
    for part in (train, test):
        findings += [finding for examined in part.examined for finding in examined.findings]
    file_classes = data.train.class_count if isinstance(data.train, FileSplit) else None
    findings += oddities(train, test, data.classes, file_classes)
    steps = list(_steps(run, train, test))
    findings += _idle(steps)
    return DataReport(
        run.manifest.dataset.kind, _counts(train), _counts(test), list(_classes(train, test, data.classes)), steps, findings
    )


def _examined(name: str, split: Split, workers: int) -> Part:
    found = for_each_image(split, examine, workers, MIN_IMAGES_FOR_WORKERS)
    places = [str(path) for path in split.images] if isinstance(split, FileSplit) else [f"{name} image {i}" for i in split.ids]
    return Part(name, split.ids, places, list(track(found, f"reading {name} images", len(split), "images")))


def _some(part: Part, name: str, positions: list[int]) -> Part:
    ids, places, examined = ([rows[position] for position in positions] for rows in (part.ids, part.places, part.examined))
    return Part(name, ids, places, examined)  # type: ignore[arg-type]


def _counts(part: Part) -> PartCounts:
    sizes = sorted((e.size for e in part.examined if e.size is not None), key=lambda size: (size[0] * size[1], size))
    pixels = part.pixels().sum(axis=0)
    whole = max(int(pixels.sum()), 1)
    return PartCounts(
        images=len(part.examined),
        unreadable=sum(e.pixels is None for e in part.examined),
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
        background=float(pixels[BACKGROUND]) / whole,
        ignored=float(pixels[IGNORE]) / whole,
    )


def _classes(train: Part, test: Part, names: tuple[str, ...]) -> Iterator[ClassCounts]:
    figures = [(part.pixels() > 0).sum(axis=0).tolist() for part in (train, test)]
    totals = [part.pixels().sum(axis=0).tolist() for part in (train, test)]
    for i, name in enumerate(names, start=1):
        yield ClassCounts(i, name, figures[0][i], totals[0][i], figures[1][i], totals[1][i])


def _steps(run: Run, train: Part, test: Part) -> Iterator[StepCounts]:
    width, protocol = 1 + len(run.classes), run.manifest.protocol
    present = [part.pixels()[:, :width] > 0 for part in (train, test)]
    for step in range(len(run.schedule)):
        names = [run.class_name(class_id) for class_id in run.schedule.new(step)]
        positions = run.schedule.select(present[0], step, "train", protocol.setting, run.manifest.seed)
        yield StepCounts(step, names, len(positions), len(run.schedule.select(present[1], step, "test")))


def _idle(steps: list[StepCounts]) -> Iterator[Finding]:
    for step in steps:
        for part, count in (("training", step.train_images), ("test", step.test_images)):
            if not count:
                yield Finding("error", f"step {step.step}", f"has no {part} image of {', '.join(step.classes)}")
