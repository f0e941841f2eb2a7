"""`eir evaluate`: the figures of a step's model on the test images (methods/README.md §7)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from eircli.common.distributed import broadcast_from_main, shard
from eircli.common.io import atomic_write, write_text
from eircli.common.progress import Say
from eircli.common.records import to_json
from eircli.common.types import BACKGROUND, Sample
from eircli.data.resize import resize_image
from eircli.data.step_view import StepView
from eircli.data.transforms import paper_crop, to_tensors
from eircli.engine.evaluate import evaluate as confusion_of
from eircli.engine.metrics import Confusion, iou, taken_by_background
from eircli.run.main_process import is_done, write_on_main
from eircli.run.predictor import Predictor
from eircli.run.results import ClassResult, StepResults, mean, read_results, results_artifact, summarize
from eircli.run.run import Run


class PaperCrops:
    """The test images as the paper has them: short side resized to the crop size, centre-cropped, as tensors."""

    def __init__(self, view: StepView, side: int) -> None:
        self.view, self.side = view, side

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return to_tensors(paper_crop(self.view.load_own_size(index), self.side))


class WholeImages:
    """The test images whole: the image at the size the network works at, the label at its own."""

    def __init__(self, view: StepView, short_side: int | None) -> None:
        self.view, self.short_side = view, short_side

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        sample = self.view.load_own_size(index)
        image = sample.image if self.short_side is None else resize_image(sample.image, self.short_side)
        return to_tensors(Sample(image, sample.label))


def evaluate(run: Run, step: int, say: Say, full_size: bool = False, again: bool = False) -> StepResults:
    """Evaluate a trained step on the images with any class seen so far; a recorded result is read back unless `again`."""
    run.check_step(step)
    if not again and is_done(run, step, results_artifact(full_size)):
        return broadcast_from_main(lambda: read_results(run.directory, step, full_size))
    predictor = Predictor(run, step)
    compute = predictor.compute
    view = run.test_view(step)
    batch_size = 1 if full_size else run.manifest.evaluate.batch_size
    images = WholeImages(view, run.manifest.data.short_side) if full_size else PaperCrops(view, run.manifest.data.crop_size)
    own = Subset(cast(Any, images), shard(len(view)))
    loader = DataLoader(
        own,
        batch_size=batch_size,
        num_workers=run.workers,
        pin_memory=compute.device.type == "cuda",
        generator=torch.Generator(),
    )
    channels = 1 + len(run.schedule.seen(step))
    title = f"{run.manifest.name} step {step}: evaluating"
    confusion = confusion_of(predictor, loader, len(own), channels, compute, title)
    return write_on_main(run, lambda: _write(run, step, confusion, len(view), full_size))


def _write(run: Run, step: int, confusion: Confusion, images: int, full_size: bool) -> StepResults:
    """Write and record a step's results."""
    results = figures(run, step, confusion, images, full_size)
    path = run.directory.results(step, full_size)
    with atomic_write(path.with_name(path.stem.replace("results", "confusion") + ".csv")) as file:
        file.write(_csv(confusion, run.channel_names(step)))
    write_text(path, to_json(results, indent=1) + "\n")
    run.directory.record(step, results_artifact(full_size), path)
    return results


def figures(run: Run, step: int, confusion: Confusion, images: int, full_size: bool) -> StepResults:
    """All figures of a confusion matrix int64 [K, K] over `images` images, with what they need of earlier steps' results."""
    schedule, absent = run.schedule, run.manifest.evaluate.absent_class
    artifact = results_artifact(full_size)
    earlier = [read_results(run.directory, t, full_size) for t in range(step) if run.directory.done(t, artifact)]
    ious = iou(confusion, absent)
    totals = summarize(ious, len(schedule.new(0)))
    old_channels = list(range(1, 1 + len(schedule.old(step))))
    # Best IoU and average are over all earlier steps, or left out: over some of them they would be other figures.
    complete = len(earlier) == step
    crop = run.manifest.data.crop_size
    return StepResults(
        step=step,
        old=totals.old,
        new=totals.new,
        all=totals.all,
        harmonic=totals.harmonic,
        average_all=mean([*(r.all for r in earlier), totals.all]) if complete else None,
        old_taken_by_background=taken_by_background(confusion, old_channels) if old_channels else None,
        size="whole images at their own size" if full_size else f"{crop} px, short side resized, centre crop",
        absent_class=absent,
        classes=tuple(_of_class(run, confusion, ious, channel, earlier if complete else []) for channel in range(len(ious))),
        images=images,
    )


def _of_class(
    run: Run, confusion: Confusion, ious: Sequence[float | None], channel: int, earlier: Sequence[StepResults]
) -> ClassResult:
    class_id = (BACKGROUND, *run.schedule.seen(len(run.schedule) - 1))[channel]
    best = max((r.classes[channel].iou or 0.0 for r in earlier if channel < len(r.classes)), default=None)
    now = ious[channel]
    return ClassResult(
        id=class_id,
        name=run.class_name(class_id),
        step=run.schedule.learned_at(class_id) if channel else 0,
        iou=now,
        pixels=int(confusion[channel].sum()),
        taken_by_background=taken_by_background(confusion, [channel]) if channel else None,
        forgetting=None if best is None or now is None else best - now,
    )


def _csv(confusion: Confusion, names: Sequence[str]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["truth \\ prediction", *names])
    writer.writerows([name, *row] for name, row in zip(names, confusion.tolist(), strict=True))
    return buffer.getvalue().encode()
