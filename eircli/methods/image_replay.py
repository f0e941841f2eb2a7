"""Image replay: whole stored images are shuffled among the new ones, with the labels they had when they were stored.

Unlabelled classes of a stored image are background there: it is pseudo-labelled, ignored, both, or kept (`missing`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from eircli.common.types import BACKGROUND, IGNORE, Batch
from eircli.config.replay import ImageReplaySettings
from eircli.memory.replay import one_hot
from eircli.methods.base import Context
from eircli.methods.distilled import DistilledReplay, replayed_background


class ImageReplay(DistilledReplay):
    """Binary cross-entropy on new and stored images; pseudo-labels and distillation as options.

    Losses: `bce` and `rskd`, as in `DistilledReplay`.
    """

    def __init__(self, config: ImageReplaySettings, context: Context) -> None:
        super().__init__(config, context)
        self.config = config

    def counted_pixels(self, batch: Batch) -> Tensor:
        """Not the background of stored images, where that is ignored: bool [N, H, W]."""
        counted = super().counted_pixels(batch)
        return counted & ~replayed_background(batch, batch.labels) if self.config.missing == "ignore" else counted

    def prepare(self, batch: Batch) -> Batch:
        images, labels, stored = batch.images.float(), batch.labels, batch.replayed.view(-1, 1, 1)
        completes = not self.decomposed and (self.config.pseudo_labels or self.config.missing in ("pseudo-labels", "confident"))
        teacher_logits = self.teacher(images) if completes else None
        completed = labels if teacher_logits is None else self.add_pseudo_labels(labels, self.seen(teacher_logits, batch))
        ignored = torch.where(labels == BACKGROUND, IGNORE, labels)
        sure = torch.where(completed == BACKGROUND, IGNORE, completed)
        of_stored = {"pseudo-labels": completed, "confident": sure, "ignore": ignored, "background": labels}[self.config.missing]
        of_new = completed if self.config.pseudo_labels else labels
        targets = one_hot(torch.where(stored, of_stored, of_new))
        return self.with_distillation(batch.with_(images=images, targets=targets), teacher_logits)
