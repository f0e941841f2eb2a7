"""`eir report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eircli.cli.options import Device, Overrides, Recipes, Seeds, open_all, say

EXAMPLE = "eir report runs/shapes-6-2-eir-seed0; or: eir report runs/shapes-6-2-* --out comparison.html"


def command(
    recipes: Recipes,
    overrides: Overrides = None,
    seeds: Seeds = None,
    device: Device = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file; by default report.html in the run directory, or beside those of several."),
    ] = None,
    pictures: Annotated[
        int, typer.Option("--pictures", min=0, help="Show this many test images with every step's prediction; 0: none.")
    ] = 6,
) -> None:
    """Write one HTML file about runs, finished or not: figures, charts, confusion, memory, predictions, and what made them."""
    runs = open_all(recipes, overrides, seeds, device=device)
    from eircli.reports.html.report import default_path, write_report

    path = out or default_path(runs)
    write_report(runs, path, pictures)
    say(f"report: {path}")
