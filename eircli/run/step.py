"""The inputs of a training step: its samples, plan, batches, and the context of its method."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from eircli.common.progress import track
from eircli.common.seeds import derive_seed
from eircli.common.types import Batch, SampleSource
from eircli.data.training_set import BatchStream, TrainingSet, collate
from eircli.data.transforms import TrainTransform
from eircli.engine.device import Compute
from eircli.engine.interrupt import ignore_interrupts
from eircli.engine.train import Plan
from eircli.memory.kinds import memory_kind
from eircli.methods.base import Context, MethodState
from eircli.model.backbones import normalisation
from eircli.model.deeplab import DeepLab
from eircli.run.run import Run


def training_set(run: Run, step: int, memory: Path | None) -> TrainingSet:
    """The samples of a step: its new images and, where the method replays them, the memory's samples.

    Args:
        memory: the file of the step's memory; None without one.
    """
    view = run.training_view(step)
    sources: list[SampleSource] = [view]
    kind = run.manifest.memory_kind
    if memory is not None and kind is not None and run.manifest.method.replays_samples:
        canvas = normalisation(run.manifest.model.backbone).canvas
        current = view if run.manifest.memory.current_labels else None
        replayed = memory_kind(kind.name).samples(memory, run.memory_table(step), canvas, current)
        sources += [] if replayed is None else [replayed]
    # In a base step every method trains alike, and samples are not pasted into each other.
    method, own_pastes = run.manifest.method, run.manifest.method.own_paste_chance if step else 0.0
    return TrainingSet(sources, TrainTransform(run.manifest.data), method.largest_replay_share, own_pastes)


def make_context(run: Run, step: int, teacher: DeepLab | None, memory: Path | None, plan: Plan, state: MethodState) -> Context:
    """The context of the step's method, on the training device; the pixels of a bank larger than `bank_memory_gb` in host memory."""
    device, old, kind = plan.compute.device, len(run.schedule.old(step)), run.manifest.memory_kind
    remembered = None
    if memory is not None and kind is not None and run.manifest.method.reads_memory:
        limit = 1e9 * run.manifest.runtime.bank_memory_gb
        remembered = memory_kind(kind.name).for_step(memory, run.memory_table(step), old, device, limit)
    return Context(
        old=old,
        new=len(run.schedule.new(step)),
        teacher=None if teacher is None else teacher.to(device),
        memory=remembered,
        state=state,
        compiled=run.manifest.runtime.compile != "none",
        per_epoch=plan.per_epoch,
    )


def make_plan(run: Run, step: int, samples: int, compute: Compute) -> Plan:
    """How a step over `samples` samples is trained."""
    manifest = run.manifest
    config, runtime = manifest.training(step), manifest.runtime
    per_epoch = samples / config.batch_size
    return Plan(
        iterations=config.iterations or max(1, round(cast(float, config.epochs) * per_epoch)),
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        # Only methods that learn the unknown class use its classifier; for others it gets no gradient.
        partly_unused=step > 0 and manifest.model.unknown_class and not manifest.method.learns_unknown_class,
        per_epoch=per_epoch,
        seed=derive_seed(manifest.seed, "train", step),
        compute=compute,
        clip_grad_norm=config.clip_grad_norm,
        ema=config.ema,
        log_every=runtime.log_every,
        save_minutes=runtime.checkpoint_minutes,
        save_epochs=runtime.checkpoint_epochs,
        title=f"{manifest.name} step {step}",
    )


def make_loader(samples: TrainingSet, plan: Plan, start: int, workers: int) -> DataLoader[Batch]:
    """This process's rows of the batches of the plan's iterations from `start` on, decoded by `workers` processes."""
    stream = BatchStream(len(samples), plan.batch_size, plan.seed, start, plan.iterations, plan.rows)
    # Its own generator: the loader would otherwise draw from the global one.
    return DataLoader(
        cast(Any, samples),
        batch_sampler=cast(Any, stream),
        collate_fn=collate,
        num_workers=workers,
        pin_memory=plan.compute.device.type == "cuda",
        generator=torch.Generator(),
        worker_init_fn=ignore_interrupts,
    )


def calibration_pass(samples: TrainingSet, plan: Plan, workers: int) -> Iterator[Batch]:
    """One pass over the step's samples, on the training device: the batches that a step's first epoch sees."""
    first = replace(plan, iterations=max(1, math.ceil(plan.per_epoch)))
    loader = make_loader(samples, first, 0, workers)
    for batch in track(loader, f"{plan.title}: calibration", first.iterations, "batches"):
        yield batch.to(plan.compute.device, seed=0)
