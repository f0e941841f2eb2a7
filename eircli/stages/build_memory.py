"""`eir build-memory`: build what a step keeps of the old classes, by the method's kind of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from eircli.common.errors import UserError
from eircli.common.progress import Say, track
from eircli.common.seeds import derive_seed
from eircli.config.fingerprint import fingerprint
from eircli.config.manifest import Memory
from eircli.data.step_view import StepView
from eircli.engine.distributed import gather_shards, shard, world_size
from eircli.memory.harvest import Candidate
from eircli.memory.kinds import Material, memory_kind
from eircli.memory.kinds.base import Find
from eircli.run.main_process import is_done, write_on_main
from eircli.run.run import Run
from eircli.stages.score_candidates import feature_batches, score_candidates


def build_memory(run: Run, step: int, say: Say, again: bool = False) -> None:
    """Build the memory of `step` from the images of the step before and the memory before (methods/README.md §4).

    Unless the rule or the kind of memory asks the model, nothing is trained for it, so it may be built before the step
    before is trained.

    Raises:
        UserError: the method keeps nothing, something it needs is missing, or nothing can be kept.
    """
    run.check_step(step)
    kind, path = run.manifest.memory_kind, run.directory.bank(step)
    if step == 0:
        raise UserError("--step 0: the base step trains without a bank; the first bank is that of step 1")
    if kind is None:
        raise UserError(f"method {run.manifest.method.name} (as set) keeps no bank; there is nothing to build")
    if not again and is_done(run, step, "bank"):
        say(f"the bank of step {step} is there already: {path} (--again builds it anew)")
        return
    if step > 1 and not is_done(run, step - 1, "bank"):
        build_memory(run, step - 1, say)
    write = memory_kind(kind.name).prepare(material_of(run, step - 1))

    def write_and_record() -> None:
        facts = write(path, {"step": step, "recipe": fingerprint(run.manifest)})
        run.directory.record(step, "bank", path, **facts)

    write_on_main(run, write_and_record)


def material_of(run: Run, step: int) -> Material:
    """The input from which the memory for the step after `step` is built.

    Raises:
        UserError: the memory before is missing or damaged.
    """
    view, schedule, manifest = run.training_view(step), run.schedule, run.manifest
    new = {schedule.seen(step).index(class_id) + 1: class_id for class_id in schedule.new(step)}
    return Material(
        step=step,
        images=view,
        new=new,
        old=schedule.old(step),
        before=run.directory.verify(step, "bank") if step > 0 else None,
        settings=manifest.memory,
        options=manifest.method.memory_options,
        generator=np.random.default_rng(derive_seed(manifest.seed, "memory", step + 1)),
        scan=partial(_scan, run, step, view, list(new)),
        score=partial(score_candidates, run, step, view),
        features=partial(feature_batches, run, step, view),
        spread=_spread,
    )


class _Scan:
    """Finds the candidates of one image; mapped over a view by worker processes."""

    def __init__(self, view: StepView, channels: list[int], settings: Memory, find: Find) -> None:
        self.view, self.channels, self.settings, self.find = view, channels, settings, find

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, image: int) -> list[Candidate]:
        return self.find(self.view.load_label(image), self.channels, image, self.settings)


def _scan(run: Run, step: int, view: StepView, channels: list[int], find: Find) -> list[Candidate]:
    scan = Subset(cast(Any, _Scan(view, channels, run.manifest.memory, find)), shard(len(view)))
    rows_per_image: DataLoader[Any] = DataLoader(scan, batch_size=None, num_workers=run.workers, generator=torch.Generator())
    rows = list(track(rows_per_image, f"harvesting step {step}", len(scan), "images"))
    return [candidate for row in gather_shards(rows) for candidate in row]


def _spread(work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    if world_size() == 1:
        return (work(item) for item in items)  # one at a time, as they are asked for
    return iter(gather_shards([work(items[number]) for number in shard(len(items))]))
