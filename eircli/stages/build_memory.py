"""`eir build-memory`: build what a step keeps of the old classes, by the method's kind of memory."""

from __future__ import annotations

from functools import partial

import numpy as np

from eircli.common.errors import UserError
from eircli.common.progress import Say
from eircli.common.seeds import derive_seed
from eircli.config.fingerprint import fingerprint
from eircli.memory.kinds import Material, memory_kind
from eircli.model.backbones import normalisation
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
    run.check_memory_step(step)
    kind, path = run.manifest.memory_kind, run.directory.bank(step)
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
        workers=run.workers,
        canvas=normalisation(manifest.model.backbone).canvas,
        score=partial(score_candidates, run, step, view),
        features=partial(feature_batches, run, step, view),
    )
