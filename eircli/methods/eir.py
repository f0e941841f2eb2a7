"""Enhanced instance replay (Yin et al., CVPR 2025, arXiv:2503.22136; method §5)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from eircli import manifest
from eircli.memory import replay
from eircli.methods.base import Context, Method
from eircli.methods.losses import rskd, summed_bce
from eircli.model.deeplab import DeepLab, upsample
from eircli.types import IGNORE, Batch, SoftLabels


class Eir(Method):
    """Pseudo-labels, instances mixed into the new images, and distillation outside the new classes.

    In the base step there is nothing to replay, and it learns from the labels as they are.
    """

    def __init__(self, config: manifest.Eir, context: Context) -> None:
        self.config, self.context = config, context

    def prepare(self, batch: Batch) -> Batch:
        teacher, config = self.context.teacher, self.config
        images = batch.images.float()
        if teacher is None:
            return batch.with_(images=images, targets=replay.one_hot(batch.labels))
        size = batch.labels.shape[1:]
        combined = batch.labels
        if config.pseudo_labels:
            combined = replay.pseudo_labels(batch.labels, upsample(teacher(images), size), config.threshold)
        if config.fusion:
            images, targets = self._fuse(images, batch, combined)
        else:
            targets = replay.one_hot(combined)
        prepared = batch.with_(images=images, targets=targets)
        if config.distill.weight == 0:
            return prepared
        return prepared.with_(teacher_logits=upsample(teacher(images), size), region=self._region(batch.labels))

    def _fuse(self, images: Tensor, batch: Batch, combined: Tensor) -> tuple[Tensor, SoftLabels]:
        config, instances = self.config, self.context.instances
        assert instances is not None
        beta = config.mixup_beta if config.paste == "mixup" else None
        generator = np.random.default_rng(batch.seed)
        draws = replay.Draws(
            *(d.to(images.device) for d in replay.draw(generator, len(images), config.pastes, config.flip, beta))
        )
        potential = replay.potential_classes(batch.labels, combined, self.context.old, config.pastes)
        slots = replay.select_slots(combined, config.slot, config.pastes)
        pastes = replay.place(potential, slots, instances, draws, config.fillers, config.fillers_below)
        return replay.fuse(images, combined, instances, pastes, draws, config.slot)

    def _region(self, labels: Tensor) -> Tensor:
        """bool [N, H, W]: the pixels to distil, by their labels before fusion; never ignored ones."""
        new = (labels > self.context.old) & (labels != IGNORE)
        match self.config.distill.region:
            case "outside-new":
                return ~new & (labels != IGNORE)
            case "inside-new":
                return new
            case "all":
                return labels != IGNORE

    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        assert batch.targets is not None
        logits = upsample(model(batch.images), batch.labels.shape[1:])
        losses = {"bce": summed_bce(logits, batch.targets, self.config.positive_weight)}
        if batch.teacher_logits is not None and batch.region is not None:
            losses["rskd"] = self.config.distill.weight * rskd(logits, batch.teacher_logits, batch.region)
        return losses
