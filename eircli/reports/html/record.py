"""What made a run: its artefacts with their hashes, versions, devices and dates, and its manifest."""

from __future__ import annotations

from typing import Any

import yaml

from eircli.config.fingerprint import to_tree
from eircli.reports.html.cells import Cell, Table, byte_count
from eircli.reports.html.facts import RunFacts

SAID_ELSEWHERE = ("weights_license", "device", "precision")
"""Facts of artefacts that stand among what holds for the whole run."""


def artefact_table(facts: RunFacts) -> Table:
    """A row per recorded artefact."""
    rows = [
        [
            Cell(f"step {step}", step),
            Cell(entry.file),
            byte_count(entry.size),
            Cell(_time(entry.made)),
            Cell(entry.sha256, css="hash"),
            Cell(", ".join(f"{key} {value}" for key, value in entry.facts.items() if key not in SAID_ELSEWHERE), css="facts"),
        ]
        for step, artefacts in facts.run.directory.steps.items()
        for entry in artefacts.values()
    ]
    return Table("Artefacts", ["step", "file", "size", "made (UTC)", "SHA-256", "further facts"], rows, css="record", texts=1)


def environment(facts: RunFacts) -> list[tuple[str, str]]:
    """Versions, devices, dates and licences: what, and its values."""
    entries = [entry for artefacts in facts.run.directory.steps.values() for entry in artefacts.values()]
    if not entries:
        return []
    made = sorted(entry.made for entry in entries)

    def distinct(values: list[Any]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values if value is not None)) or "not recorded"

    weights = facts.run.manifest.model.weights
    licences = distinct([entry.facts.get("weights_license") for entry in entries])
    return [
        ("eir", distinct([entry.eir for entry in entries])),
        ("PyTorch", distinct([entry.torch for entry in entries])),
        ("Python", distinct([entry.python for entry in entries])),
        ("device", distinct([entry.facts.get("device") for entry in entries])),
        ("precision", distinct([entry.facts.get("precision") for entry in entries])),
        ("first made", f"{_time(made[0])} UTC"),
        ("last made", f"{_time(made[-1])} UTC"),
        ("starting weights", str(weights)),
        ("their licence", "no weights" if str(weights) == "none" else licences),
        ("directory", str(facts.run.directory.path)),
    ]


def _time(made: str) -> str:
    return made.removesuffix("+00:00").replace("T", " ")


def manifest_yaml(facts: RunFacts) -> str:
    """The resolved recipe as YAML, without the record."""
    return yaml.safe_dump(to_tree(facts.run.manifest), sort_keys=False, default_flow_style=None, allow_unicode=True)
