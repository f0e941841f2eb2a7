"""Prediction with the model of a step, on images with or without labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from eircli.common.types import UInt8Array
from eircli.data.resize import resize_image
from eircli.engine.device import choose_compute
from eircli.model.deeplab import predict
from eircli.run.models import load_model
from eircli.run.run import Run


class Predictor:
    """The trained model of a step on the run's device, in evaluation mode. Needs the run directory alone, no data set.

    Example:
        >>> predictor = Predictor(open_run(Path("runs/shapes-6-2-eir-seed0")), step=2)   # doctest: +SKIP
        >>> channels = predictor.predict(image)                                          # doctest: +SKIP
        >>> predictor.names[channels[0, 0]]                                              # doctest: +SKIP
        'background'

    Raises:
        UserError: the step's checkpoint is missing or damaged, or the device is not there.
    """

    def __init__(self, run: Run, step: int) -> None:
        self.compute = choose_compute(run.manifest.runtime)
        self.model = load_model(run, step).to(self.compute.device).eval()
        self.activation = run.manifest.activation(step)
        self.short_side = run.manifest.data.short_side
        self.names = run.channel_names(step)
        """The names of the predicted channels."""

    def __call__(self, images: Tensor, size: Sequence[int]) -> Tensor:
        """uint8 [N, 3, h, w] on the device → channels uint8 [N, H, W] of the wanted `size` (H, W)."""
        return predict(self.model(images), self.activation, size)

    @torch.no_grad()
    def predict(self, image: UInt8Array) -> UInt8Array:
        """A whole image, uint8 [H, W, 3] in RGB, at the size the network works at → channels uint8 [H, W] at its own size.

        Raises:
            ValueError: no such array.
        """
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                'give an RGB image as a uint8 array [H, W, 3], such as np.array(PIL.Image.open(file).convert("RGB"))'
            )
        working = image if self.short_side is None else resize_image(image, self.short_side)
        batch = torch.from_numpy(working.copy()).permute(2, 0, 1).unsqueeze(0)
        with self.compute.autocast():
            found = self(batch.to(self.compute.device), image.shape[:2])
        predicted: UInt8Array = found[0].cpu().numpy()
        return predicted
