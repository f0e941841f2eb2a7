"""`eir export`: a step's model as a file for programs without this one, checked against the model itself."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from eircli import __version__
from eircli.common.errors import UserError
from eircli.common.io import atomic_write
from eircli.common.types import BACKGROUND, UInt8Array
from eircli.config.section import Activation
from eircli.model.deeplab import DeepLab, upsample
from eircli.run.models import load_model
from eircli.run.run import Run

Format = Literal["onnx", "pt2"]

SIZES = ((1, 96, 128), (3, 160, 96), (2, 65, 97))
"""Images on which the file is held against the model: how many, height and width; none of them as in the export."""

TOLERANCE = 1e-3
"""The most by which a logit may differ, relative to the largest."""


class ClassMaps(nn.Module):
    """Images to class maps: normalisation, network, and how its logits are read.

    Args:
        class_ids: of the channels, background's first.
    """

    class_ids: Tensor

    def __init__(self, model: DeepLab, activation: Activation, class_ids: list[int]) -> None:
        super().__init__()
        self.model, self.activation = model, activation
        self.register_buffer("class_ids", torch.tensor(class_ids, dtype=torch.uint8))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [N, 3, H, W], RGB → class ids uint8 [N, H, W], and logits float [N, K, h, w] at the network's stride."""
        logits = self.model(images.float())
        raised = upsample(logits, images.shape[2:])
        if self.activation == "softmax":
            return self.class_ids[raised.argmax(dim=1)], logits
        best, channel = raised[:, 1:].max(dim=1)
        return self.class_ids[torch.where(best > 0, channel + 1, BACKGROUND)], logits


@dataclass(frozen=True)
class Exported:
    """A model exported, and how well the file agrees with it."""

    file: str
    format: str
    step: int
    bytes: int
    classes: dict[str, int]
    """Name → class id."""
    short_side: int | None
    """To which images are to be resized first, as the network was trained; None: not at all."""
    largest_difference: float
    """Of a logit, from the model's, over images of several sizes."""
    differing_pixels: float
    """The share of the class maps' pixels that differ."""


def export(run: Run, step: int, format: Format, path: Path, size: tuple[int, int] | None = None) -> Exported:
    """Write a step's model to a file: raw images in, class ids out; the batch is free.

    Args:
        size: height and width of the images; None: these are free too.

    Raises:
        UserError: the step is not trained, a package is missing, the network cannot be exported, or the file does not agree with it.
    """
    ids = [BACKGROUND, *run.schedule.seen(step)]
    classes = dict(zip(run.channel_names(step), ids, strict=True))
    model = load_model(run, step)
    if size is None and pads_by_size(model):
        raise UserError(f"{run.manifest.model.backbone} pads by the image's size, which cannot be left free: give --size HxW")
    maps = ClassMaps(model, run.manifest.activation(step), ids).eval()
    facts = {
        "classes": classes,
        "input": f"images: uint8 [N, 3, {'H, W' if size is None else ', '.join(map(str, size))}], RGB",
        "outputs": "class_ids: uint8 [N, H, W]; logits: float32 [N, channels, h, w]",
        "short_side": run.manifest.data.short_side,
        "run": run.manifest.name,
        "step": step,
        "eir": __version__,
    }
    described = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
    program = _traced(maps, size)
    written, load = _onnx(program, described) if format == "onnx" else _pt2(program, described)
    largest, differing = _differences(maps, load(written), SIZES if size is None else ((1, *size), (3, *size)))
    if largest > TOLERANCE:
        raise UserError(f"the exported file differs from the model by {largest:.2g} of the largest logit; nothing was written")
    with atomic_write(path) as file:
        file.write(written)
    return Exported(
        str(path),
        format,
        step,
        len(written),
        classes,
        run.manifest.data.short_side,
        largest,
        differing,
    )


def pads_by_size(model: nn.Module) -> bool:
    """Whether convolutions or poolings pad by the size of what they get, as timm's ports of TensorFlow's networks do.

    Tracing such a network for free sizes takes tens of minutes.
    """
    return any(type(module).__name__.endswith("Same") for module in model.modules())


Runner = Callable[[UInt8Array], tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]
"""Images uint8 [N, 3, H, W] → class ids [N, H, W] and logits [N, K, h, w], by a file."""


def _differences(maps: ClassMaps, run_file: Runner, sizes: Sequence[tuple[int, int, int]]) -> tuple[float, float]:
    """The largest difference of a logit relative to the largest logit, and the share of pixels of another class."""
    generator = np.random.default_rng(0)
    largest, differing, pixels = 0.0, 0, 0
    for count, height, width in sizes:
        images = generator.integers(0, 256, (count, 3, height, width), np.uint8)
        with torch.no_grad():
            class_ids, logits = (output.numpy() for output in maps(torch.from_numpy(images)))
        found_ids, found = run_file(images)
        largest = max(largest, float(np.abs(found - logits).max() / np.abs(logits).max()))
        differing += int((found_ids != class_ids).sum())
        pixels += class_ids.size
    return largest, differing / pixels


def _traced(maps: ClassMaps, size: tuple[int, int] | None) -> torch.export.ExportedProgram:
    free = torch.export.Dim.AUTO
    dimensions = {0: free} if size is not None else {0: free, 2: free, 3: free}
    example = torch.zeros(2, 3, *(size or (128, 160)), dtype=torch.uint8)
    try:
        with torch.no_grad():
            return torch.export.export(maps, (example,), dynamic_shapes={"images": dimensions}, strict=False)
    except Exception as error:  # of many types, by what the network does
        raise UserError(f"this network cannot be exported: {str(error).strip().splitlines()[0]}") from None


def _pt2(program: torch.export.ExportedProgram, facts: dict[str, str]) -> tuple[bytes, Callable[[bytes], Runner]]:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"eir.json": json.dumps(facts)})

    def load(written: bytes) -> Runner:
        module = torch.export.load(io.BytesIO(written)).module()

        def run(images: UInt8Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
            with torch.no_grad():
                class_ids, logits = module(torch.from_numpy(images))
            return class_ids.numpy(), logits.numpy()

        return run

    return buffer.getvalue(), load


def _onnx(traced: torch.export.ExportedProgram, facts: dict[str, str]) -> tuple[bytes, Callable[[bytes], Runner]]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise UserError(
            f"--format onnx needs the package {error.name}; install the extra onnx, such as pip install -e '.[onnx]'"
        ) from None
    program = torch.onnx.export(
        traced,
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=["images"],
        output_names=["class_ids", "logits"],
    )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {**{one.key: one.value for one in model.metadata_props}, **facts})

    def load(written: bytes) -> Runner:
        session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])

        def run(images: UInt8Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
            class_ids, logits = session.run(["class_ids", "logits"], {"images": images})
            return class_ids, logits

        return run

    return model.SerializeToString(), load
