"""Scoring candidates for the memory by a model: its confidence, and their mean features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from eircli.common.distributed import gather_shards, shard
from eircli.common.progress import track
from eircli.common.types import BACKGROUND
from eircli.data.step_view import StepView
from eircli.data.transforms import paper_crop, to_tensors
from eircli.engine.device import choose_compute
from eircli.memory.harvest import Candidate, candidate_mask
from eircli.memory.kinds.base import known_instances
from eircli.memory.prototypes import on_grid
from eircli.memory.select import Score
from eircli.model.deeplab import predict, upsample
from eircli.run.models import load_model

if TYPE_CHECKING:
    from eircli.run.run import Run


@torch.no_grad()
def score_candidates(run: Run, step: int, view: StepView, found: Sequence[Candidate]) -> list[Score]:
    """Score candidates, which are ordered by image, by the model of `step`; processes share the images."""
    compute = choose_compute(run.manifest.runtime)
    model = load_model(run, step).to(compute.device).eval()
    softmax = run.manifest.activation(step) == "softmax"
    scores: list[list[Score]] = []
    every_image = [(image, list(group)) for image, group in groupby(found, key=lambda candidate: candidate.image)]
    images = [every_image[position] for position in shard(len(every_image))]
    for image, group in track(images, f"scoring candidates of step {step}", len(images), "images"):
        scores.append([])
        sample, known = view.load(image), known_instances(view, image, run.manifest.memory)
        with compute.autocast():
            features = model.features(to_tensors(sample)[0].unsqueeze(0).to(compute.device))
            logits = upsample(model.classify(features), sample.label.shape)[0]
        probabilities = logits.softmax(dim=0) if softmax else logits.sigmoid()
        for candidate in group:
            mask = torch.from_numpy(candidate_mask(sample.label, candidate, known)).to(compute.device)
            # Cells are weighted by their overlap with the mask: a small object may contain no cell's centre.
            share = interpolate(mask[None, None].float(), features.shape[2:], mode="area")[0, 0]
            mean = (features[0].float() * share).sum(dim=(1, 2)) / share.sum()
            confidence = float(probabilities[candidate.channel][mask].mean())
            scores[-1].append(Score(confidence, normalize(mean, dim=0).cpu().numpy()))
    return [score for of_image in gather_shards(scores) for score in of_image]


@torch.no_grad()
def feature_batches(run: Run, step: int, view: StepView) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The features of the model of `step` over a view in evaluation crops, batch by batch.

    Yields:
        Features float [N, C, h, w]; labels uint8 [N, h, w] on their grid; where background is both labelled and predicted,
        bool [N, h, w].
    """
    compute = choose_compute(run.manifest.runtime)
    model = load_model(run, step).to(compute.device).eval()
    size, side = run.manifest.evaluate.batch_size, run.manifest.data.crop_size
    starts = range(0, len(view), size)
    for start in track(starts, f"gathering features of step {step}", len(starts), "batches"):
        crops = [to_tensors(paper_crop(view.load(i), side)) for i in range(start, min(start + size, len(view)))]
        images, labels = (torch.stack(parts).to(compute.device) for parts in zip(*crops, strict=True))
        with compute.autocast():
            features = model.features(images)
            predicted = predict(model.classify(features), run.manifest.activation(step))
        grid = on_grid(labels, features.shape[2:])
        yield features.float(), grid, (grid == BACKGROUND) & (predicted == BACKGROUND)
