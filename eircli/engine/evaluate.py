"""The confusion matrix of a model over a test set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from eircli.common.distributed import all_reduce_sum
from eircli.common.progress import progress
from eircli.engine.device import Compute
from eircli.engine.metrics import Confusion, confusion_matrix


@torch.no_grad()
def evaluate(
    predict: Callable[[Tensor, Sequence[int]], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    count: int,
    channels: int,
    compute: Compute,
    title: str,
) -> Confusion:
    """The confusion matrix, int64 [K, K], of a model in evaluation mode, over the images of all processes.

    Args:
        predict: uint8 images [N, 3, h, w] and the labels' size to predictions uint8 [N, H, W].
        count: how many images this process has.
        batches: its images and uint8 labels [N, H, W]; sizes of image and label may differ.
    """
    total = torch.zeros(channels, channels, dtype=torch.int64, device=compute.device)
    with progress(title, count, "images") as reporter:
        for images, labels in batches:
            with compute.autocast():
                predicted = predict(images.to(compute.device, non_blocking=True), labels.shape[1:])
            total += confusion_matrix(labels.to(compute.device), predicted, channels)
            reporter.advance(len(images))
    return np.asarray(all_reduce_sum(total).cpu().numpy())
