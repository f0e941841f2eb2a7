"""`eir predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eircli.cli.options import AsJson, Device, open_one, say
from eircli.common.errors import UserError
from eircli.common.records import to_json

EXAMPLE = "eir predict runs/my-images-seed0 photos/ --out predicted"


def command(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or its manifest.yaml.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGES...", help="Images, folders of them, or patterns in quotes.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the predictions go.")],
    step: Annotated[
        int | None, typer.Option("--step", "-t", help="The model of this step; by default the last trained one.")
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            "--window",
            min=0,
            help="Side of the windows over large images, pixels; 0: always whole. By default 1024 beyond 4 megapixels.",
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Images of one size that go through the network together.")
    ] = 4,
    overlays: Annotated[bool, typer.Option("--overlays/--no-overlays", help="Also draw the classes over the images.")] = True,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write every class's probability (NumPy).")] = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Predict the classes in images of your own. Needs the run directory alone, no data set."""
    run = open_one(run_dir, None, None, device)
    if not run.directory.manifest_path.exists():
        raise UserError(f"{run_dir}: give a run directory, in which a model was trained")
    from eircli.data.photos import find_photos

    photos = find_photos(images)
    from eircli.reports.predictions import Predictions, Wanted, predict_all
    from eircli.reports.tables import areas_table, stdout
    from eircli.run.predictor import Predictor

    chosen = run.directory.last_trained() if step is None else step
    predictor = Predictor(run, chosen, window)
    done, unreadable = predict_all(predictor, photos, out, Wanted(overlays, probabilities), batch_size)
    if as_json:
        print(to_json(Predictions(str(run.directory.path), chosen, tuple(done), unreadable)))
    elif done:
        stdout().print(areas_table(done))
    for image, reason in unreadable.items():
        say(f"not read: {image}: {reason}")
    say(f"{len(done)} of {len(photos)} images predicted by the model of step {chosen}: {out}")
    if not done:
        raise UserError("none of the images could be read")
