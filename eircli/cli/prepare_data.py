"""`eir prepare-data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from eircli.cli.options import AsJson, say
from eircli.common.records import to_json

EXAMPLE = "eir prepare-data voc --root data/voc"

NEXT = {"voc": "configs/voc-15-5-eir.yaml", "ade20k": "configs/ade-100-5-eir.yaml"}
"""A recipe for each."""


def command(
    name: Annotated[Literal["voc", "ade20k"], typer.Argument(metavar="voc|ade20k", help="The data set.")],
    root: Annotated[Path, typer.Option("--root", metavar="DIR", help="The folder to make, dataset.root of the recipes.")],
    files: Annotated[
        list[Path] | None, typer.Option("--from", metavar="FILE", help="An archive that you have already; repeatable.")
    ] = None,
    urls: Annotated[
        list[str] | None, typer.Option("--url", metavar="URL", help="Where to download an archive instead; repeatable.")
    ] = None,
    any_checksum: Annotated[
        bool, typer.Option("--any-checksum", help="Take an archive whose size and checksum are not the known ones.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Download PASCAL VOC 2012 with SBD's labels (train_aug), or ADE20K; check it, and lay it out for training."""
    from eircli.stages.prepare_data import prepare_data

    made = prepare_data(name, root, files or [], urls or [], any_checksum, say)
    if as_json:
        print(to_json(made))
    else:
        print(f"{made.root}: " + ", ".join(f"{part} {count:,} images" for part, count in made.images.items()))
        for part in made.differs:
            print(f"note: {part} has {made.images[part]:,} images, the published data set {made.known[part]:,}")
        for file in made.archives:
            print(f"no longer needed: {file}")
    say(f"next: eir show-step {NEXT[name]} --step 0 --set dataset.root={made.root}")
