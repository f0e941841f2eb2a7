"""A few fixed test images in a report: image, truth, and what every step's model makes of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from eircli.common.errors import UserError
from eircli.common.progress import track
from eircli.common.types import BACKGROUND, IGNORE, Sample, UInt8Array
from eircli.engine.device import choose_compute
from eircli.reports.html.colours import class_colours, hex_colour
from eircli.reports.html.facts import RunFacts
from eircli.reports.html.uris import jpeg_uri, png_uri
from eircli.reports.pictures import coloured
from eircli.run.predictor import Predictor
from eircli.run.run import Run

LONGEST = 240
"""Longest side of a panel, pixels."""

SMALL = 100
"""Up to this longest side a panel is kept without loss, and enlarged without blur."""

QUALITY = 80


@dataclass(frozen=True)
class Panel:
    """One picture."""

    title: str
    uri: str
    alt: str
    size: tuple[int, int]
    """Width and height, pixels."""
    small: bool


@dataclass(frozen=True)
class Row:
    """A test image with its truth and predictions."""

    id: str
    panels: list[Panel]
    legend: list[tuple[str, str]]
    """Name and colour of the classes in it."""


def picture_rows(facts: RunFacts, wanted: int) -> list[Row] | str:
    """`wanted` test images, spread evenly over the test set of the last trained step; or why there are none.

    Raises:
        UserError: the device is not there.
    """
    choose_compute(facts.run.manifest.runtime)
    if not facts.trained:
        return "no step is trained yet"
    try:
        return _rows(facts.run, facts.trained, wanted)
    except UserError as error:
        return f"the test images and predictions cannot be had here: {error}"


def _rows(run: Run, trained: list[int], wanted: int) -> list[Row]:
    view = run.test_view(trained[-1])
    places = np.unique(np.linspace(0, len(view) - 1, wanted).astype(int)).tolist()
    samples = {view.ids[place]: view.load_own_size(place) for place in places}
    predictions: dict[str, dict[int, UInt8Array]] = {name: {} for name in samples}
    for step in track(trained, f"{run.manifest.name}: predicting", len(trained), "steps"):
        predictor = Predictor(run, step)  # one model in memory at a time
        for name, sample in samples.items():
            predictions[name][step] = predictor.predict(sample.image)
    names = run.channel_names(trained[-1])
    return [_row(name, sample, predictions[name], names) for name, sample in samples.items()]


def _row(name: str, sample: Sample, predictions: dict[int, UInt8Array], names: list[str]) -> Row:
    maps = {"truth": sample.label, **{f"after step {step}": found for step, found in predictions.items()}}
    panels = [_panel("image", sample.image, f"test image {name}")]
    for title, label in maps.items():
        picture = coloured(sample.image, label, class_colours())
        panels.append(_panel(title, picture, f"{name}, {title}: {_described(label, names)}"))
    shown = sorted({int(channel) for label in maps.values() for channel in np.unique(label)} - {BACKGROUND})
    legend = [("ignored" if channel == IGNORE else names[channel], hex_colour(channel)) for channel in shown]
    return Row(name, panels, legend)


def _described(label: UInt8Array, names: list[str]) -> str:
    """The classes in a label uint8 [H, W], the largest first, with their share of the picture."""
    found, counts = np.unique(label, return_counts=True)
    order = [place for place in np.argsort(-counts).tolist() if found[place] not in (BACKGROUND, IGNORE)]
    parts = [f"{names[found[place]]} {100 * counts[place] / label.size:.0f} %" for place in order]
    return ", ".join(parts) or "background alone"


def _panel(title: str, pixels: UInt8Array, alt: str) -> Panel:
    """A picture uint8 [H, W, 3] as a panel."""
    picture = Image.fromarray(pixels)
    small = max(picture.size) <= SMALL
    if not small:
        picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return Panel(title, png_uri(pixels) if small else jpeg_uri(picture, QUALITY), alt, picture.size, small)
