"""`eir build-memory`: the bank that a step trains with."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader

from eircli.data.step_view import StepView
from eircli.errors import UserError
from eircli.memory.bank import Bank, write_bank
from eircli.memory.harvest import Candidate, candidates, choose, cut_out
from eircli.progress import Say, track
from eircli.recipe import fingerprint
from eircli.seeds import derive_seed
from eircli.types import Instance
from eircli.workbench import Workbench


class _Scan:
    """Finds the candidates of one image; mapped over a view by worker processes."""

    def __init__(self, view: StepView, channels: list[int], bench: Workbench) -> None:
        memory = bench.manifest.memory
        self.view, self.channels = view, channels
        self.selection, self.min_area = memory.selection, memory.min_area

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, image: int) -> list[Candidate]:
        return candidates(self.view.load_label(image), self.channels, image, self.selection, self.min_area)


def build_memory(bench: Workbench, step: int, say: Say, again: bool = False) -> Bank:
    """Harvest the bank of `step` from the images of the step before and the bank before (method §4).

    Nothing is trained for it, so it may be built before the step before is trained.

    Raises:
        UserError: the method keeps no bank, the bank before is missing, or no instance can be had.
    """
    bench.check_step(step)
    run = bench.run
    if step == 0:
        raise UserError("--step 0: the base step trains without a bank; the first bank is that of step 1")
    if not bench.manifest.replays:
        raise UserError(f"method {bench.manifest.method.name} (as set) keeps no bank; there is nothing to build")
    if not again and run.done(step, "bank"):
        say(f"the bank of step {step} is there already: {run.bank(step)} (--again builds it anew)")
        return Bank(run.bank(step))
    before = None
    if step > 1:
        if not run.done(step - 1, "bank"):
            build_memory(bench, step - 1, say)
        before = Bank(run.verify(step - 1, "bank"))
    instances = _harvest(bench, step, before)
    memory = bench.manifest.memory
    facts: dict[str, int | str] = {
        "step": step,
        "budget": memory.budget,
        "selection": memory.selection,
        "recipe": fingerprint(bench.manifest),
    }
    write_bank(run.bank(step), instances, memory.encoding, memory.jpeg_quality, facts)
    run.record(step, "bank", run.bank(step), instances=len(instances), budget=memory.budget)
    return Bank(run.bank(step))


def _harvest(bench: Workbench, step: int, before: Bank | None) -> list[Instance]:
    """A balanced random choice of the new candidates of step - 1 and of what the bank before holds."""
    view = bench.training_view(step - 1)
    schedule = bench.schedule
    channels = {schedule.seen(step - 1).index(class_id) + 1: class_id for class_id in schedule.new(step - 1)}
    scan = cast(Any, _Scan(view, list(channels), bench))
    rows_per_image: DataLoader[Any] = DataLoader(scan, batch_size=None, num_workers=bench.workers, generator=torch.Generator())
    found = [
        candidate for rows in track(rows_per_image, f"harvesting step {step - 1}", len(view), "images") for candidate in rows
    ]
    pools: dict[int, list[int]] = {}
    for class_id in schedule.old(step - 1):
        assert before is not None
        pools[class_id] = np.flatnonzero(before.index["class_id"] == class_id).tolist()
    for channel, class_id in channels.items():
        pools[class_id] = [position for position, candidate in enumerate(found) if candidate.channel == channel]
    generator = np.random.default_rng(derive_seed(bench.manifest.seed, "memory", step))
    chosen = choose(pools, bench.manifest.memory.budget, generator)
    instances = []
    for class_id, positions in chosen.items():
        for position in positions:
            if class_id in channels.values():
                candidate = found[position]
                instances.append(cut_out(view, candidate, class_id, view.ids[candidate.image], step - 1))
            elif before is not None:
                instances.append(before.load(position))
    if not instances:
        raise UserError(f"step {step}: no instance could be harvested; try --set memory.selection=component")
    return instances


def bank_facts(bench: Workbench, step: int, bank: Bank) -> dict[str, object]:
    """What a bank holds: instances per class by name, bytes, and the classes that fell short of an even share."""
    held, old = bank.per_class(), bench.schedule.old(step)
    budget = bench.manifest.memory.budget
    share = budget // len(old)
    return {
        "step": step,
        "path": str(bank.path),
        "budget": budget,
        "instances": len(bank),
        "bytes": bank.path.stat().st_size,
        "per_class": {bench.class_name(c): held.get(c, 0) for c in old},
        "short": [bench.class_name(c) for c in old if held.get(c, 0) < share],
    }
