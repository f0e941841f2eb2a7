"""`eir extend`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eircli.cli.options import AsJson, Device, Overrides, on_device, open_one, say
from eircli.common.errors import UserError
from eircli.common.records import to_json

EXAMPLE = "eir extend runs/my-images-seed0 --data new-images --classes fox,owl"


def command(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory: its last trained step is taken up.")],
    data: Annotated[
        str,
        typer.Option(
            "--data", metavar="DIR", help="A folder of the new images and their labels, or a `dataset` section: '{kind: …}'."
        ),
    ],
    classes: Annotated[str, typer.Option("--classes", metavar="A,B,…", help="The new classes by name.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The new run directory; by default beside RUN.")
    ] = None,
    overrides: Overrides = None,
    device: Device = None,
    test_before: Annotated[
        bool,
        typer.Option(
            "--test-before/--no-test-before", help="Also test on the test images of the run's own data, if they are there."
        ),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Teach a trained run new classes from new images alone; the run itself is left as it is."""
    run = open_one(run_dir, None, None, device)
    if not run.directory.manifest_path.exists():
        raise UserError(f"{run_dir}: give a run directory, in which a model was trained")
    names = [name.strip() for name in classes.split(",")]
    if not all(names):
        raise UserError(f"--classes {classes}: write names with commas between them, such as --classes fox,owl")
    from eircli.reports.tables import results_table, stdout, summary_lines
    from eircli.stages.extend import extend, extended_manifest

    manifest = extended_manifest(run, _dataset(data), names, [*(overrides or []), *on_device(device)], test_before)
    path = out or run.directory.path.with_name(f"{manifest.name}-seed{manifest.seed}")
    new, results = extend(run, manifest, path, say)
    if as_json:
        print(to_json(results))
    else:
        console = stdout()
        console.print(results_table(results, manifest.name))
        for line in summary_lines(results):
            console.print(line, highlight=False)
    say(f"next: eir predict {new.directory.path} IMAGES --out DIR")


def _dataset(data: str) -> dict[str, object]:
    """The `dataset` section of the new images."""
    if not data.lstrip().startswith("{"):
        return {"kind": "folder", "root": data}
    import yaml

    try:
        section = yaml.safe_load(data)
    except yaml.YAMLError:
        raise UserError(f"--data {data}: is not valid YAML") from None
    if not isinstance(section, dict):
        raise UserError(f"--data {data}: write a `dataset` section, such as '{{kind: folder, root: DIR}}'")
    return section
