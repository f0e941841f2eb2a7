"""Pictures of what a step's model predicts: photograph, truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from eircli.common.errors import UserError
from eircli.common.io import atomic_write
from eircli.common.types import BACKGROUND, IGNORE, Sample, UInt8Array
from eircli.reports.colours import palette
from eircli.run.predictor import Predictor
from eircli.run.run import Run

PANEL = 160
"""The least height of a panel, pixels."""
LINE = 14
"""Height of a line of text, pixels."""
GAP = 4


def draw_pictures(run: Run, step: int, count: int) -> list[Path]:
    """Write `count` pictures of test images, spread evenly over the test set, into the step's folder `pictures`."""
    view = run.test_view(step)
    paths = []
    for index, picture in _panels([run], step, count):
        paths.append(run.directory.file(step, f"pictures/{view.ids[index]}.png"))
        _save(picture, paths[-1])
    return paths


def draw_side_by_side(runs: Sequence[Run], count: int) -> Path:
    """Write one picture of `count` test images with the predictions of every run after the last step.

    Raises:
        UserError: the runs end with other classes or test images.
    """
    first, last = runs[0], len(runs[0].schedule) - 1
    for run in runs:
        if run.schedule != first.schedule or run.test_view(last).ids != first.test_view(last).ids:
            raise UserError(f"--pictures: {first.manifest.name} and {run.manifest.name} differ in classes or test images")
    rows = [picture for _, picture in _panels(runs, last, count)]
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    path = runs[-1].directory.file(last, "side-by-side.png")
    _save(sheet, path)
    return path


def _panels(runs: Sequence[Run], step: int, count: int) -> Iterator[tuple[int, Image.Image]]:
    """Test image by test image, its position and its panel with the predictions of all runs."""
    predictors = {run.manifest.name: Predictor(run, step) for run in runs}
    view, names = runs[0].test_view(step), runs[0].channel_names(step)
    for index in np.unique(np.linspace(0, len(view) - 1, count).astype(int)).tolist():
        sample = view.load_own_size(index)
        predictions = {name: predictor.predict(sample.image) for name, predictor in predictors.items()}
        yield index, panel(sample, predictions, names)


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_write(path) as file:
        picture.save(file, "PNG", optimize=True)


def panel(sample: Sample, predictions: Mapping[str, UInt8Array], names: Sequence[str]) -> Image.Image:
    """Image, truth and predictions (title → channels uint8 [H, W]) side by side, with the names of the classes in them."""
    scale = max(1, -(-PANEL // sample.label.shape[0]))
    maps = {"truth": sample.label, **predictions}
    parts = {"image": sample.image} | {title: coloured(sample.image, label, palette()) for title, label in maps.items()}
    height, width = scale * sample.label.shape[0], scale * sample.label.shape[1]
    shown = sorted({int(c) for label in maps.values() for c in np.unique(label)} - {BACKGROUND, IGNORE})
    sheet = Image.new("RGB", (len(parts) * (width + GAP), LINE + height + LINE * len(shown) + 2 * GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (title, part) in enumerate(parts.items()):
        left = number * (width + GAP)
        pen.text((left, 1), title, "black")
        sheet.paste(Image.fromarray(_enlarged(part, scale)), (left, LINE))
    for line, channel in enumerate(shown):
        top = LINE + height + GAP + LINE * line
        pen.rectangle((0, top, 10, top + 10), fill=tuple(palette()[channel].tolist()))
        pen.text((16, top - 1), names[channel], "black")
    return sheet


def coloured(image: UInt8Array, label: NDArray[np.uint8], colours: UInt8Array) -> UInt8Array:
    """The photograph, greyed, under the label's colours: uint8 [H, W, 3], [H, W] and [256, 3] → [H, W, 3]."""
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    mixed = np.where((label == 0)[..., None], 0.6 * grey, 0.35 * grey + 0.65 * colours[label])
    return np.asarray(mixed, np.uint8)


def _enlarged(image: UInt8Array, scale: int) -> UInt8Array:
    return image.repeat(scale, axis=0).repeat(scale, axis=1)
