"""`eir settings`."""

from __future__ import annotations

from typing import Annotated

import typer

from eircli.cli.options import AsJson, Overrides, Recipe, open_one
from eircli.common.errors import UserError
from eircli.common.records import to_json

EXAMPLE = "eir settings configs/shapes-6-2-eir.yaml --of method"


def command(
    recipe: Recipe,
    of: Annotated[
        str, typer.Option("--of", metavar="KEY", help="Only this key, or section, such as memory or method.distill.")
    ] = "",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """List every setting of a recipe: key, value, the words it takes, meaning. What the recipe leaves out is a default."""
    from eircli.config.schema import all_settings

    found = all_settings(open_one(recipe, overrides, None, look_only=True).manifest)
    shown = [one for one in found if not of or f"{one.key}.".startswith(f"{of}.")]
    if not shown:
        from eircli.common.suggest import did_you_mean

        raise UserError(f"--of {of}: no such key; {did_you_mean(of, [one.key for one in found])}see eir settings {recipe}")
    if as_json:
        print(to_json({one.key: one._asdict() for one in shown}))
        return
    from eircli.reports.tables import settings_table, stdout

    stdout().print(settings_table(shown))
