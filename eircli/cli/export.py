"""`eir export`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from eircli.cli.options import AsJson, open_one, say
from eircli.common.errors import UserError
from eircli.common.records import to_json

EXAMPLE = "eir export runs/my-images-seed0 --format onnx --out segmenter.onnx"


def command(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or its manifest.yaml.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The file; by default in the step's folder.")] = None,
    format: Annotated[Literal["onnx", "pt2"], typer.Option("--format", help="ONNX (extra onnx), or torch.export's.")] = "onnx",
    step: Annotated[
        int | None, typer.Option("--step", "-t", help="The model of this step; by default the last trained one.")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", metavar="HxW", help="Fix the images' height and width; by default both are free.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a model for other programs: raw uint8 images in, class ids out; checked against the model itself."""
    run = open_one(run_dir, None, None)
    fixed = None if size is None else re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", size)
    if size is not None and fixed is None:
        raise UserError(f"--size {size}: write height and width, such as --size 512x683")
    chosen = run.directory.last_trained() if step is None else step
    from eircli.stages.export import export

    found = export(
        run, chosen, format, out or run.directory.file(chosen, f"model.{format}"), fixed and (int(fixed[1]), int(fixed[2]))
    )
    if as_json:
        print(to_json(found))
        return
    print(f"{found.file}: {found.bytes:,} bytes, the model of step {found.step}")
    print("classes: " + ", ".join(f"{class_id} {name}" for name, class_id in found.classes.items()))
    print(
        f"against the model: logits differ by {found.largest_difference:.1g} of the largest, {found.differing_pixels:.2%} of the pixels"
    )
    if found.short_side is not None:
        say(
            f"give it images whose short side is {found.short_side} pixels, bilinear with antialiasing: so the network was trained"
        )
