"""What a model makes of candidates for the memory: its confidence, and their mean features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from eircli.common.progress import track
from eircli.common.types import BACKGROUND
from eircli.data.step_view import StepView
from eircli.data.transforms import paper_crop, to_tensors
from eircli.engine.device import choose_compute
from eircli.engine.distributed import collected, own_share
from eircli.memory.harvest import Candidate, candidate_mask
from eircli.memory.prototypes import on_grid
from eircli.model.deeplab import predict, upsample
from eircli.run.models import load_model
from eircli.run.run import Workbench


class Rating(NamedTuple):
    confidence: float
    """The mean probability of the candidate's class over its pixels."""
    feature: Tensor
    """float [C], of length 1: the mean feature over its pixels."""


@torch.no_grad()
def rate(bench: Workbench, step: int, view: StepView, found: Sequence[Candidate]) -> list[Rating]:
    """Ratings of candidates, ordered by image, under the model of `step`."""
    compute = choose_compute(bench.manifest.runtime)
    model = load_model(bench, step).to(compute.device).eval()
    softmax = bench.manifest.activation(step) == "softmax"
    ratings: list[list[Rating]] = []
    every_image = [(image, list(group)) for image, group in groupby(found, key=lambda candidate: candidate.image)]
    images = [every_image[position] for position in own_share(len(every_image))]
    for image, group in track(images, f"rating candidates of step {step}", len(images), "images"):
        ratings.append([])
        sample = view.load(image)
        with compute.autocast():
            features = model.features(to_tensors(sample)[0].unsqueeze(0).to(compute.device))
            logits = upsample(model.classify(features), sample.label.shape)[0]
        probabilities = logits.softmax(dim=0) if softmax else logits.sigmoid()
        for candidate in group:
            mask = torch.from_numpy(candidate_mask(sample.label, candidate)).to(compute.device)
            # Cells count by their share of the mask: a small object may hold no cell's centre.
            share = interpolate(mask[None, None].float(), features.shape[2:], mode="area")[0, 0]
            mean = (features[0].float() * share).sum(dim=(1, 2)) / share.sum()
            ratings[-1].append(Rating(float(probabilities[candidate.channel][mask].mean()), normalize(mean, dim=0).cpu()))
    return [rating for of_image in collected(ratings) for rating in of_image]


@torch.no_grad()
def feature_batches(bench: Workbench, step: int, view: StepView) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Features, labels on their grid, and where background is labelled and predicted, over a view in evaluation crops."""
    compute = choose_compute(bench.manifest.runtime)
    model = load_model(bench, step).to(compute.device).eval()
    size, side = bench.manifest.evaluate.batch_size, bench.manifest.data.crop_size
    starts = range(0, len(view), size)
    for start in track(starts, f"gathering prototypes of step {step}", len(starts), "batches"):
        crops = [to_tensors(paper_crop(view.load(i), side)) for i in range(start, min(start + size, len(view)))]
        images, labels = (torch.stack(parts).to(compute.device) for parts in zip(*crops, strict=True))
        with compute.autocast():
            features = model.features(images)
            predicted = predict(model.classify(features), bench.manifest.activation(step))
        grid = on_grid(labels, features.shape[2:])
        yield features.float(), grid, (grid == BACKGROUND) & (predicted == BACKGROUND)
