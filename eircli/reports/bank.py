"""What the memory of a step holds."""

from __future__ import annotations

from dataclasses import dataclass

from eircli.config.memory_kinds import MEMORY_KINDS
from eircli.memory.kinds import memory_kind
from eircli.run.run import Run


@dataclass(frozen=True)
class BankFacts:
    """What the memory of a step holds."""

    step: int
    path: str
    kind: str
    rule: str | None
    """Selection rule; None for kinds without."""
    budget: int | str
    exemplars: int
    bytes: int
    """Of its exemplars, as the budget counts them."""
    file_bytes: int
    per_class: dict[str, int]
    """Exemplars by the class's name."""
    short: list[str]
    """The classes that have less than an even share."""


def bank_facts(run: Run, step: int) -> BankFacts:
    """What the memory of a step holds.

    Raises:
        UserError: it is not built, missing or damaged.
    """
    path, old = run.directory.verify(step, "bank"), run.schedule.old(step)
    entry, limit = run.directory.steps[step]["bank"], run.manifest.memory.limit
    kind = MEMORY_KINDS[entry.facts["kind"]]
    held = memory_kind(kind.name).per_class(path, old)
    share = limit.amount // len(old) if kind.bounded and limit.unit == "exemplars" else 1
    return BankFacts(
        step=step,
        path=str(path),
        kind=kind.name,
        rule=entry.facts.get("rule"),
        budget=run.manifest.memory.budget,
        exemplars=entry.facts["exemplars"],
        bytes=entry.facts["bytes"],
        file_bytes=entry.size,
        per_class={run.class_name(c): held.get(c, 0) for c in old},
        short=[run.class_name(c) for c in old if held.get(c, 0) < share],
    )
