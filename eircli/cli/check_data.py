"""`eir check-data`."""

from __future__ import annotations

import typer

from eircli.cli.exit_codes import USER_ERROR
from eircli.cli.options import AsJson, Overrides, Recipe, RunDirectory, open_one
from eircli.common.records import to_json

EXAMPLE = "eir check-data configs/voc-15-5-eir.yaml --set dataset.root=/path/to/VOC2012"


def command(recipe: Recipe, overrides: Overrides = None, run_dir: RunDirectory = None, as_json: AsJson = False) -> None:
    """Read a data set whole: what is wrong (exit code 2) or odd in it, how often each class occurs, and the steps' images."""
    run = open_one(recipe, overrides, run_dir, look_only=True)
    from eircli.reports.data_check import check_data

    report = check_data(run)
    if as_json:
        print(to_json(report))
    else:
        from eircli.reports.data_check_table import data_table, finding_lines
        from eircli.reports.tables import stdout

        stdout().print(data_table(report))
        for line in finding_lines(report):
            print(line)
    if report.of("error"):
        raise typer.Exit(USER_ERROR)
