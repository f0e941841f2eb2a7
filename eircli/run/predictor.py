"""Prediction with the model of a step, on images with or without labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eircli.common.types import UInt8Array
from eircli.data.resize import resize_image
from eircli.engine.device import choose_compute
from eircli.engine.threads import use_threads
from eircli.model.deeplab import predict, upsample
from eircli.run.models import load_model
from eircli.run.run import Run
from eircli.run.windows import Window, windows

LARGEST = 4_000_000
"""Pixels that an image may have, at the size the network works at, to go through it whole."""

WINDOW = 1024
"""Side of the windows that go over larger images, pixels."""


class Predictor:
    """The trained model of a step on the run's device, in evaluation mode. Needs the run directory alone, no data set.

    Example:
        >>> predictor = Predictor(open_run(Path("runs/shapes-6-2-eir-seed0")), step=2)   # doctest: +SKIP
        >>> channels = predictor.predict(image)                                          # doctest: +SKIP
        >>> predictor.names[channels[0, 0]]                                              # doctest: +SKIP
        'background'

    Args:
        window: side of square windows, pixels of the size the network works at, in which larger images are predicted; 0: none,
            every image whole; None: `WINDOW` for images of more than `LARGEST` pixels.

    Raises:
        UserError: the step's checkpoint is missing or damaged, or the device is not there.
    """

    def __init__(self, run: Run, step: int, window: int | None = None) -> None:
        self.compute = choose_compute(run.manifest.runtime)
        use_threads(run.manifest, self.compute, step)
        self.model = load_model(run, step).to(self.compute.device).eval()
        self.activation = run.manifest.activation(step)
        self.short_side, self.window = run.manifest.data.short_side, window
        self.names = run.channel_names(step)
        """The names of the predicted channels."""
        self.class_ids = np.array([0, *run.schedule.seen(step)], np.uint8)
        """The class ids of the predicted channels, uint8 [K]; background is 0."""

    def __call__(self, images: Tensor, size: Sequence[int]) -> Tensor:
        """uint8 [N, 3, h, w] on the device → channels uint8 [N, H, W] of the wanted `size` (H, W)."""
        return predict(self.model(images), self.activation, size)

    def predict(self, image: UInt8Array) -> UInt8Array:
        """An image, uint8 [H, W, 3] in RGB → channels uint8 [H, W].

        Raises:
            ValueError: no such array.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[UInt8Array]) -> list[UInt8Array]:
        """`predict` of several images of one size at once: uint8 [H, W, 3] each → channels uint8 [H, W] each.

        Raises:
            ValueError: no such arrays.
        """
        size = _common_size(images)
        found = np.empty((len(images), *size), np.uint8)
        for window, logits in self._logits(images):
            predicted = predict(logits, self.activation, window.size)
            found[:, *window.target] = predicted[:, *window.inner].cpu().numpy()
        return list(found)

    def probabilities(self, image: UInt8Array) -> NDArray[np.float16]:
        """An image, uint8 [H, W, 3] in RGB → the probability of every channel, float16 [K, H, W].

        Of methods that train by soft-max these add up to 1; of others each is a class's own sigmoid, background's too.

        Raises:
            ValueError: no such array.
        """
        found = np.empty((len(self.names), *_common_size([image])), np.float16)
        for window, logits in self._logits([image]):
            raised = upsample(logits, window.size)
            probability = raised.softmax(dim=1) if self.activation == "softmax" else raised.sigmoid()
            found[:, *window.target] = probability[0, :, *window.inner].half().cpu().numpy()
        return found

    @torch.no_grad()
    def _logits(self, images: Sequence[UInt8Array]) -> Iterator[tuple[Window, Tensor]]:
        """The windows of images of one size, at that size, and in each the network's logits [N, K, h, w]."""
        working = [image if self.short_side is None else resize_image(image, self.short_side) for image in images]
        batch, own = torch.from_numpy(np.stack(working)).permute(0, 3, 1, 2), images[0].shape
        size = (batch.shape[2], batch.shape[3])
        side = (WINDOW if size[0] * size[1] > LARGEST else 0) if self.window is None else self.window
        for window in windows(size, side or max(size)):
            with self.compute.autocast():
                logits = self.model(batch[:, :, *window.source].to(self.compute.device))
            yield window.scaled(size, (own[0], own[1])), logits


def _common_size(images: Sequence[UInt8Array]) -> tuple[int, int]:
    for image in images:
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                'give an RGB image as a uint8 array [H, W, 3], such as np.array(PIL.Image.open(file).convert("RGB"))'
            )
    sizes = {(image.shape[0], image.shape[1]) for image in images}
    if len(sizes) != 1:
        raise ValueError(f"images of one size go together; these are {sorted(sizes)}")
    return sizes.pop()
