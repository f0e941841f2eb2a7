"""`eir report`: one self-contained HTML file about one or several runs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from eircli import __version__
from eircli.common.errors import UserError
from eircli.common.io import write_text
from eircli.reports.html import figures, memory, record
from eircli.reports.html.facts import RunFacts, read_confusion, read_facts
from eircli.reports.html.groups import compared
from eircli.run.run import Run

NAME = "report.html"

Chapter = dict[str, object]
"""What the template shows of a run."""


def default_path(runs: Sequence[Run]) -> Path:
    """Where the report about these runs goes: into the run's directory, or beside those of several.

    Raises:
        UserError: several that do not lie in one folder.
    """
    if len(runs) == 1:
        return runs[0].directory.path / NAME
    folders = {run.directory.path.resolve().parent: run.directory.path.parent for run in runs}
    if len(folders) > 1:
        raise UserError(
            f"--out: the runs lie in different folders ({', '.join(map(str, folders.values()))}); name the report's file"
        )
    return next(iter(folders.values())) / NAME


def write_report(runs: Sequence[Run], out: Path, pictures: int) -> None:
    """Write the report, atomically.

    Args:
        pictures: how many test images are shown with every step's prediction; without any neither torch nor the data set is needed.

    Raises:
        UserError: a run that does not exist, a damaged file, or `out` is a folder.
    """
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder; name a file in it, such as {out / NAME}")
    facts = [read_facts(run) for run in runs]
    together, left_out = compared(facts) if len(facts) > 1 else (None, [])
    write_text(
        out,
        _render(
            title=facts[0].run.manifest.name if len(facts) == 1 else f"{len(facts)} runs",
            together=together,
            left_out=left_out,
            chapters=[_chapter(one, number if len(facts) > 1 else 0, pictures) for number, one in enumerate(facts, start=1)],
        ),
    )


def _chapter(facts: RunFacts, number: int, pictures: int) -> Chapter:
    """A run's chapter; `number` 0 for the only one."""
    run, last, steps = facts.run, facts.last, len(facts.run.schedule)
    evaluated = bool(facts.results)
    sheet = memory.contact_sheet(facts)
    return {
        "prefix": f"run-{number}-" if number else "",
        "run": run.manifest,
        "title": f"{run.manifest.name}, seed {run.manifest.seed}",
        "steps": steps,
        "classes": len(run.schedule.seen(steps - 1)),
        "missing": facts.missing,
        "next": facts.status.next,
        "last": last,
        "figures": figures.figures_table(facts.results) if evaluated else None,
        "chart": figures.figures_chart(facts.results) if evaluated else None,
        "full_size": figures.figures_table(facts.full_size) if facts.full_size else None,
        "ious": figures.class_table(facts.results, steps, "iou") if evaluated else None,
        "taken": figures.class_table(facts.results, steps, "taken_by_background") if evaluated else None,
        "confusion": _confusion(facts),
        "training": [_training(facts, step) for step in range(steps)],
        "keeps": run.manifest.memory_kind is not None,
        "banks": memory.memory_table(facts) if facts.banks else None,
        "sheet": sheet,
        "pictures": _pictures(facts, pictures) if pictures else None,
        "artefacts": record.artefact_table(facts),
        "environment": record.environment(facts),
        "manifest": record.manifest_yaml(facts),
    }


def _confusion(facts: RunFacts) -> dict[str, object]:
    if facts.last is None:
        return {"absent": "no step is evaluated yet"}
    found, names = read_confusion(facts.run, facts.last), [row.name for row in facts.last.classes]
    if isinstance(found, str):
        return {"absent": found}
    small = len(names) <= figures.MOST_IN_TABLE
    return {
        "table": figures.confusion_table(found, names) if small else None,
        "picture": None if small else figures.confusion_picture(found, names),
        "mistakes": figures.mistakes_table(found, names),
        "absent": None,
    }


def _training(facts: RunFacts, step: int) -> dict[str, object]:
    if step in facts.training:
        losses, rate, size = figures.training_charts(step, facts.training[step])
        return {"step": step, "losses": losses, "rate": rate, "size": size, "absent": None}
    entry = facts.run.directory.entry(step, "checkpoint")
    if entry is None:
        return {"step": step, "absent": "not trained yet"}
    shared = "shared_from" in entry.facts
    return {"step": step, "absent": "no journal here: the model is another run’s" if shared else "its journal is not there"}


def _pictures(facts: RunFacts, wanted: int) -> dict[str, object]:
    from eircli.reports.html.pictures import picture_rows

    found = picture_rows(facts, wanted)
    return {"absent": found} if isinstance(found, str) else {"rows": found, "absent": None}


def _render(**content: Any) -> str:
    environment = Environment(
        loader=PackageLoader("eircli.reports.html", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (_part(environment, name) for name in ("style.css", "script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        **content,
        style=Markup(style),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        version=__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
    )


def _part(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]
