"""Enhanced instance replay (Yin et al., CVPR 2025, arXiv:2503.22136; methods/README.md §5)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from eircli.common.types import BACKGROUND, IGNORE, Batch, SoftLabels
from eircli.config.replay import EirSettings
from eircli.memory import decoded, fusion, replay
from eircli.methods.base import Context
from eircli.methods.distilled import DistilledReplay, Seen, replayed_background


class Eir(DistilledReplay):
    """Pseudo-labels, instances mixed into the new images, and distillation outside the new classes.

    Losses: `bce` and `rskd`, as in `DistilledReplay`.
    """

    def __init__(self, config: EirSettings, context: Context) -> None:
        super().__init__(config, context)
        self.config = config

    def counted_pixels(self, batch: Batch) -> Tensor:
        """Not the surroundings of stand-alone samples, where those are ignored: bool [N, H, W]."""
        counted = super().counted_pixels(batch)
        return counted & ~replayed_background(batch, batch.labels) if self.config.surroundings == "ignore" else counted

    def prepare(self, batch: Batch) -> Batch:
        images, config = batch.images, self.config
        teacher_logits = self.teacher(images) if config.pseudo_labels else None
        seen = None if teacher_logits is None else self.seen(teacher_logits, batch)
        combined = batch.labels if seen is None else self.add_pseudo_labels(batch.labels, seen)
        # Decomposed, old channels imitate the teacher instead of learning its pseudo-labels, which still say where to paste what.
        known = batch.labels if self.decomposed else combined
        if not config.fusion:
            targets = self._where_known(replay.one_hot(known), batch, known)
            return self.with_distillation(batch.with_(images=images.float(), targets=targets), teacher_logits)
        mixed, targets = self._fuse(images, batch, combined, known, seen)
        return self.with_distillation(batch.with_(images=mixed, targets=self._where_known(targets, batch, known)))

    def _where_known(self, targets: SoftLabels, batch: Batch, known: Tensor) -> SoftLabels:
        """The targets without what is unknown of stand-alone samples' surroundings, pasted over or not."""
        if self.config.surroundings == "background":
            return targets
        labels = batch.labels if self.config.surroundings == "ignore" else known
        return targets._replace(valid=targets.valid & ~replayed_background(batch, labels))

    def _fuse(
        self, images: Tensor, batch: Batch, combined: Tensor, known: Tensor, seen: Seen | None
    ) -> tuple[Tensor, SoftLabels]:
        config, instances = self.config, self.context.memory
        assert isinstance(instances, decoded.Instances)
        beta = config.mixup_beta if config.paste == "mixup" else None
        # Drawn for the whole batch, of which this may be a part, so that an image gets the same draws however the batch is split.
        first, size = batch.part or (0, len(images))
        drawn = replay.draw(np.random.default_rng(batch.seed), size, config.pastes, config.flip, beta, config.paste_scale)
        draws = replay.Draws(*(d[first : first + len(images)] for d in drawn)).to(images.device)
        potential = replay.potential_classes(batch.labels, combined, self.context.old, config.pastes)
        unseen = None if seen is None or config.slots == "background" else surely_unseen(*seen)
        slots = replay.select_slots(combined, config.slot, config.pastes, unseen)
        pastes = replay.place(potential, slots, instances, draws, config.fillers, config.fillers_below)
        spared = None if config.paste_over_new else (known > self.context.old) & (known != IGNORE)
        return fusion.fuse(images, known, instances, pastes, draws, config.slot, spared, config.feather)


def surely_unseen(best: Tensor, channel: Tensor) -> Tensor:
    """How sure the old model is that a pixel is none of its classes, float [N, H, W]: 1 where it sees none.

    Args:
        best, channel: its greatest logit of every pixel, and that logit's channel.
    """
    return torch.where(channel == BACKGROUND, 1, 1 - torch.sigmoid(best))
