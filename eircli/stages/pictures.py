"""Pictures of what a step's model predicts: photograph, truth and prediction side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from eircli.data.step_view import resize_short_side
from eircli.data.transforms import to_tensors
from eircli.engine.device import choose_compute
from eircli.rundir import atomic_write
from eircli.stages.evaluate import predictor
from eircli.stages.models import load_model
from eircli.types import IGNORE, Sample, UInt8Array
from eircli.workbench import Workbench

PANEL = 256
"""The least height of a panel, pixels."""
LINE = 14


@torch.no_grad()
def draw_pictures(bench: Workbench, step: int, count: int) -> list[Path]:
    """Write `count` pictures of test images, spread evenly over the test set, into the step's folder `pictures`."""
    compute = choose_compute(bench.manifest.runtime)
    model = load_model(bench, step).to(compute.device).eval()
    view = bench.test_view(step)
    names = [bench.class_name(class_id) for class_id in (0, *bench.schedule.seen(step))]
    paths = []
    for index in np.unique(np.linspace(0, len(view) - 1, count).astype(int)).tolist():
        sample = view.load_own_size(index)
        working = sample if view.short_side is None else resize_short_side(sample, view.short_side)
        image, _ = to_tensors(working)
        prediction = predictor(model)(image.unsqueeze(0).to(compute.device), sample.label.shape)[0].cpu().numpy()
        path = bench.run.file(step, f"pictures/{view.ids[index]}.png")
        with atomic_write(path) as file:
            panel(sample, prediction, names).save(file, "PNG")
        paths.append(path)
    return paths


def palette() -> UInt8Array:
    """uint8 [256, 3]: PASCAL VOC's colours, the bits of an index spread over red, green and blue; ignore is white."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    colours[IGNORE] = 255
    return colours


def panel(sample: Sample, prediction: UInt8Array, names: list[str]) -> Image.Image:
    """Photograph, truth, prediction, and the names of the classes in them."""
    scale = max(1, -(-PANEL // sample.label.shape[0]))
    parts = [_enlarged(part, scale) for part in (sample.image, _coloured(sample, sample.label), _coloured(sample, prediction))]
    height, width = parts[0].shape[:2]
    shown = sorted({int(c) for c in np.unique(np.concatenate([sample.label.ravel(), prediction.ravel()]))} - {0, IGNORE})
    sheet = Image.new("RGB", (3 * width + 8, height + LINE * (2 + len(shown))), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (part, title) in enumerate(zip(parts, ("image", "truth", "prediction"), strict=True)):
        sheet.paste(Image.fromarray(part), (number * (width + 4), LINE))
        pen.text((number * (width + 4), 1), title, "black")
    for line, channel in enumerate(shown):
        top = height + LINE * (line + 1) + 4
        pen.rectangle((0, top, 10, top + 10), fill=tuple(palette()[channel].tolist()))
        pen.text((16, top - 1), names[channel], "black")
    return sheet


def _coloured(sample: Sample, label: NDArray[np.uint8]) -> UInt8Array:
    """The photograph, greyed, under the label's colours."""
    grey = sample.image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    mixed = np.where((label == 0)[..., None], 0.6 * grey, 0.35 * grey + 0.65 * palette()[label])
    return np.asarray(mixed, np.uint8)


def _enlarged(image: UInt8Array, scale: int) -> UInt8Array:
    return image.repeat(scale, axis=0).repeat(scale, axis=1)
