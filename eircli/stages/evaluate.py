"""`eir evaluate`: what a step's model knows (method §7)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from eircli.common.io import atomic_write, write_text
from eircli.common.progress import Say
from eircli.common.types import BACKGROUND, Sample
from eircli.data.resize import resize_short_side
from eircli.data.step_view import StepView
from eircli.data.transforms import paper_crop, to_tensors
from eircli.engine.device import choose_compute
from eircli.engine.distributed import from_main, own_share
from eircli.engine.evaluate import evaluate as run_over
from eircli.engine.metrics import Confusion, iou, mean, summary, taken_by_background
from eircli.model.deeplab import predict
from eircli.reports.show import Results, read_results
from eircli.run.main_process import by_main, is_done
from eircli.run.models import load_model
from eircli.run.run import Workbench
from eircli.run.rundir import Artifact


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
        resized = sample if self.short_side is None else resize_short_side(sample, self.short_side)
        return to_tensors(Sample(resized.image, sample.label))


def predictor(bench: Workbench, step: int, device: torch.device) -> Any:
    """A step's predictions, uint8 [N, H, W], of images at a wanted size."""
    model, activation = load_model(bench, step).to(device).eval(), bench.manifest.activation(step)

    def run(images: Tensor, size: Sequence[int]) -> Tensor:
        return predict(model(images), activation, size)

    return run


def evaluate(bench: Workbench, step: int, say: Say, full_size: bool = False, again: bool = False) -> Results:
    """Evaluate a trained step on the images with any class seen so far; a recorded result is read back unless `again`."""
    bench.check_step(step)
    artifact: Artifact = "results_full_size" if full_size else "results"
    if not again and is_done(bench, step, artifact):
        return from_main(lambda: read_results(bench, step, full_size))
    compute = choose_compute(bench.manifest.runtime)
    run = predictor(bench, step, compute.device)
    view = bench.test_view(step)
    batch_size = 1 if full_size else bench.manifest.evaluate.batch_size
    images = WholeImages(view, bench.manifest.data.short_side) if full_size else PaperCrops(view, bench.manifest.data.crop_size)
    own = Subset(cast(Any, images), own_share(len(view)))
    loader = DataLoader(
        own,
        batch_size=batch_size,
        num_workers=bench.workers,
        pin_memory=compute.device.type == "cuda",
        generator=torch.Generator(),
    )
    channels = 1 + len(bench.schedule.seen(step))
    title = f"{bench.manifest.name} step {step}: evaluating"
    confusion = run_over(run, loader, len(own), channels, compute, title)
    return by_main(bench, lambda: _write(bench, step, confusion, len(view), full_size))


def _write(bench: Workbench, step: int, confusion: Confusion, images: int, full_size: bool) -> Results:
    """Write and record a step's results."""
    artifact: Artifact = "results_full_size" if full_size else "results"
    results = figures(bench, step, confusion, full_size) | {"images": images}
    path = bench.run.results(step, full_size)
    with atomic_write(path.with_name(path.stem.replace("results", "confusion") + ".csv")) as file:
        file.write(_csv(confusion, ["background", *(bench.class_name(c) for c in bench.schedule.seen(step))]))
    write_text(path, json.dumps(results, indent=1) + "\n")
    bench.run.record(step, artifact, path)
    return results


def figures(bench: Workbench, step: int, confusion: Confusion, full_size: bool) -> Results:
    """All figures of a confusion matrix, in percent, with what they need of earlier steps' results."""
    schedule, config = bench.schedule, bench.manifest.evaluate
    artifact: Artifact = "results_full_size" if full_size else "results"
    earlier = [read_results(bench, t, full_size) for t in range(step) if bench.run.done(t, artifact)]
    ious = iou(confusion, config.absent_class)
    totals = summary(ious, len(schedule.new(0)))
    classes = []
    for channel, class_id in enumerate((BACKGROUND, *schedule.seen(step))):
        # A best over some of the earlier steps might not be the best: as with the average, all of them or none.
        past = (
            [r["classes"][channel]["iou"] or 0.0 for r in earlier if channel < len(r["classes"])] if len(earlier) == step else []
        )
        best = max(past, default=None)
        now = ious[channel]
        classes.append(
            {
                "id": class_id,
                "name": bench.class_name(class_id),
                "step": 0 if class_id == BACKGROUND else schedule.learned_at(class_id),
                "iou": now,
                "pixels": int(confusion[channel].sum()),
                "taken_by_background": taken_by_background(confusion, [channel]) if channel else None,
                "forgetting": None if best is None or now is None else best - now,
            }
        )
    old_channels = list(range(1, 1 + len(schedule.old(step))))
    # An average over some of the steps would not be the average over the steps: leave it out unless all are there.
    average = mean([*(r["all"] for r in earlier), totals.all]) if len(earlier) == step else None
    return {
        "step": step,
        "old": totals.old,
        "new": totals.new,
        "all": totals.all,
        "harmonic": totals.harmonic,
        "average_all": average,
        "old_taken_by_background": taken_by_background(confusion, old_channels) if old_channels else None,
        "size": "whole images at their own size"
        if full_size
        else f"{bench.manifest.data.crop_size} px, short side resized, centre crop",
        "absent_class": config.absent_class,
        "classes": classes,
    }


def _csv(confusion: Confusion, names: Sequence[str]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["truth \\ prediction", *names])
    writer.writerows([name, *row] for name, row in zip(names, confusion.tolist(), strict=True))
    return buffer.getvalue().encode()
