"""`eir train`: one step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from eircli.common.errors import UserError
from eircli.common.progress import Say, track
from eircli.common.seeds import derive_seed
from eircli.common.types import Batch, SampleSource
from eircli.config.manifest import Runtime
from eircli.config.methods import Eir, Ssul
from eircli.data.training_set import BatchStream, TrainingSet, collate
from eircli.data.transforms import TrainTransform
from eircli.engine.checkpoint import load_state, save_state
from eircli.engine.device import Compute, choose_compute
from eircli.engine.distributed import count, from_main
from eircli.engine.interrupt import ignore_interrupts
from eircli.engine.journal import Journal
from eircli.engine.optim import build_optimizer, build_scheduler
from eircli.engine.parallel import communication
from eircli.engine.train import Plan, TrainState, fit
from eircli.memory.bank import Bank
from eircli.memory.prototypes import Prototypes, read_prototypes
from eircli.memory.replay import decode
from eircli.memory.standalone import StandaloneInstances, StoredImages
from eircli.methods import build_method
from eircli.methods.base import Context
from eircli.model.acceleration import checkpoint_activations, compile_model, fold_batchnorm, lower_weights
from eircli.model.deeplab import DeepLab
from eircli.model.tap_convolution import take_apart_dilated
from eircli.run.main_process import is_done
from eircli.run.models import checkpoint_recipe, save_model, start_model
from eircli.run.run import Workbench
from eircli.stages.base_steps import claimed, share, take
from eircli.stages.build_memory import build_memory


def train(bench: Workbench, step: int, say: Say, again: bool = False) -> None:
    """Train a step, going on where an interrupted run stopped; a finished step is left alone unless `again`.

    Raises:
        UserError: the step before is not trained, its batches cannot be shared out, or something it needs is missing or
            damaged.
        RunFailed: a loss is no longer finite.
    """
    bench.check_step(step)
    check_sharing(bench, step)
    run = bench.run
    if not again and is_done(bench, step, "checkpoint"):
        say(f"step {step} is trained already: {run.checkpoint(step)} (--again trains it anew)")
        return
    if step > 0 and not is_done(bench, step - 1, "checkpoint"):
        raise UserError(
            f"step {step} starts from step {step - 1}, which is not trained; run: eir train {run.name} --step {step - 1}"
        )
    if again:
        from_main(lambda: run.resume_file(step).unlink(missing_ok=True))
    if step > 0 and bench.manifest.keeps and not is_done(bench, step, "bank"):
        build_memory(bench, step, say)
    compute = choose_compute(bench.manifest.runtime)
    if step > 0 or not bench.manifest.runtime.share_base_step:
        _train(bench, step, compute, say)
        return
    with claimed(bench, say):
        if again or not take(bench, say):
            _train(bench, step, compute, say)
            share(bench)


def check_sharing(bench: Workbench, step: int) -> None:
    """Refuse batches of a step that cannot be shared out among processes and micro-batches."""
    config, key = bench.manifest.training(step), "train.batch_size" if step else "train.base.batch_size"
    parts, method = count() * config.accumulate, bench.manifest.method
    if config.batch_size % parts:
        raise UserError(
            f"{key}: {config.batch_size} samples cannot be shared out evenly ({_factors(config.accumulate)}); make it a multiple of "
            f"{parts}, or change the number of processes or train.accumulate"
        )
    if step > 0 and parts > 1 and not method.in_parts:
        raise UserError(
            f"method {method.name}: its losses are not the means of their parts', so its steps after the base step run in one "
            "process, without torchrun, and with train.accumulate=1"
        )


def _train(bench: Workbench, step: int, compute: Compute, say: Say) -> None:
    run = bench.run
    model, teacher = start_model(bench, step)
    memory = run.verify(step, "bank") if step > 0 and bench.manifest.keeps else None
    samples = training_set(bench, step, memory)
    plan = make_plan(bench, step, len(samples), compute)
    economise(model, teacher, bench.manifest.runtime, compute)
    state = _start_state(bench, step, model.to(compute.device), plan)
    if from_main(run.resume_file(step).exists):
        _resume(bench, step, state, len(samples))
        say(f"step {step}: going on at iteration {state.iteration} of {plan.iterations}")
    method = build_method(bench.manifest.method, make_context(bench, step, teacher, memory, plan))
    loader = make_loader(samples, plan, state.iteration, bench.workers)
    with compute.autocast():
        method.begin(model, lambda: survey(samples, plan, bench.workers))
    say(describe_plan(bench, step, model, plan))
    sent = sent_bytes(model, plan)
    mark = {"recipe": checkpoint_recipe(bench, step), "samples": len(samples)}
    fit(
        state,
        method,
        loader,
        plan,
        Journal(run.journal(step), state.iteration),
        save=lambda current: save_state(run.resume_file(step), mark | current.state_dict()),
    )
    facts = {
        "iterations": plan.iterations,
        "samples": len(samples),
        "processes": count(),
        "sent_bytes": sent,
        "device": compute.device.type,
        "precision": str(compute.dtype),
    }
    if step == 0:
        facts["base_step"] = bench.base_fingerprint
    save_model(bench, step, model, **facts)
    from_main(lambda: run.resume_file(step).unlink(missing_ok=True))


def describe_plan(bench: Workbench, step: int, model: DeepLab, plan: Plan) -> str:
    """A line: how a step's batches are shared out, the learning rate, and what processes send each other."""
    config, factors = bench.manifest.training(step), _factors(plan.accumulate)
    shared_out = f" = {factors} × {len(plan.rows) // plan.accumulate}" if factors else ""
    line = f"step {step}: batch {plan.batch_size}{shared_out}, learning rate {config.lr:g}"
    if count() == 1:
        return line
    sent = communication(model)
    return (
        f"{line}; summed per iteration: {sent.gradients:,} bytes of gradients, {plan.accumulate * sent.batchnorm:,} of BatchNorm"
    )


def _factors(accumulate: int) -> str:
    """The numbers, more than 1, into which batches are shared out, in words."""
    return " × ".join(f"{n} {what}" for n, what in ((count(), "processes"), (accumulate, "micro-batches")) if n > 1)


def sent_bytes(model: DeepLab, plan: Plan) -> int:
    """The bytes that a process hands in to be summed in an iteration."""
    sent = communication(model)
    return sent.gradients + plan.accumulate * sent.batchnorm if count() > 1 else 0


def _resume(bench: Workbench, step: int, state: TrainState[DeepLab], samples: int) -> None:
    path = bench.run.resume_file(step)
    saved = load_state(path, checkpoint_recipe(bench, step), "delete it to start the step afresh")
    if saved["samples"] != samples:
        raise UserError(
            f"{path}: was trained on {saved['samples']} samples, there are now {samples}; "
            "put the data set back, or delete this file to start the step afresh"
        )
    state.load_state_dict(saved)


def training_set(bench: Workbench, step: int, memory: Path | None) -> TrainingSet:
    """The step's new images and what of the memory is trained on as samples of their own."""
    sources: list[SampleSource] = [bench.training_view(step)]
    method, table = bench.manifest.method, bench.memory_table(step)
    if memory is not None and bench.manifest.keeps == "images":
        sources.append(StoredImages(Bank(memory), table))
    if memory is not None and isinstance(method, Eir) and method.standalone_replay:
        sources.append(StandaloneInstances(Bank(memory), table))
    return TrainingSet(sources, TrainTransform(bench.manifest.data))


def make_context(bench: Workbench, step: int, teacher: DeepLab | None, memory: Path | None, plan: Plan) -> Context:
    """What the step's method is told; on the training device, but for the pixels of a bank larger than `bank_memory_gb`."""
    device, old = plan.compute.device, bench.schedule.old(step)
    instances = prototypes = None
    if memory is not None and bench.manifest.keeps == "instances":
        limit = 1e9 * bench.manifest.runtime.bank_memory_gb
        instances = decode(Bank(memory), bench.memory_table(step), len(old), device, limit)
    if memory is not None and bench.manifest.keeps == "prototypes":
        prototypes = Prototypes(*(tensor.to(device) for tensor in read_prototypes(memory)))
    teacher = None if teacher is None else teacher.to(device)
    compiled = bench.manifest.runtime.compile != "none"
    return Context(len(old), len(bench.schedule.new(step)), teacher, instances, prototypes, compiled, plan.per_epoch)


def survey(samples: TrainingSet, plan: Plan, workers: int) -> Iterator[Batch]:
    """One pass over the step's samples, on the training device: what a step's first epoch will see."""
    first = replace(plan, iterations=max(1, math.ceil(plan.per_epoch)))
    for batch in track(make_loader(samples, first, 0, workers), f"{plan.title}: survey", first.iterations, "batches"):
        yield batch.to(plan.compute.device, seed=0)


def make_plan(bench: Workbench, step: int, samples: int, compute: Compute) -> Plan:
    """How a step over `samples` samples is trained."""
    manifest = bench.manifest
    config, runtime = manifest.training(step), manifest.runtime
    per_epoch = samples / config.batch_size
    return Plan(
        iterations=config.iterations or max(1, round(cast(float, config.epochs) * per_epoch)),
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        # The unknown class's classifier is beside the logits: SSUL alone reads it. All other parameters have a loss, or need none.
        partly_unused=step > 0 and manifest.model.unknown_class and not isinstance(manifest.method, Ssul),
        per_epoch=per_epoch,
        seed=derive_seed(manifest.seed, "train", step),
        compute=compute,
        clip_grad_norm=config.clip_grad_norm,
        log_every=runtime.log_every,
        save_minutes=runtime.checkpoint_minutes,
        save_epochs=runtime.checkpoint_epochs,
        title=f"{manifest.name} step {step}",
    )


def economise(model: DeepLab, teacher: DeepLab | None, runtime: Runtime, compute: Compute) -> None:
    """Make student and teacher cheaper to run, as `runtime` says; what they compute stays the same, to rounding."""
    if runtime.checkpoint_activations:
        checkpoint_activations(model)
    if teacher is not None:
        fold_batchnorm(teacher)
        if compute.dtype != torch.float32:
            lower_weights(teacher, compute.dtype)
    for network in (model, teacher):
        if network is not None and compute.device.type == "cpu" and compute.dtype == torch.bfloat16:
            take_apart_dilated(network)
    if runtime.compile != "none":
        for network in (model, teacher):
            if network is not None:
                # A replayed graph would overwrite what the teacher said of the batch's images before.
                compile_model(network, runtime.compile if network is model else "default")


def _start_state(bench: Workbench, step: int, model: DeepLab, plan: Plan) -> TrainState[DeepLab]:
    config = bench.manifest.training(step)
    model.train_mode(config.frozen_batchnorm, config.dropout)
    optimizer = build_optimizer(*model.parameter_groups(), config, fused=not plan.compute.scaler().is_enabled())
    return TrainState(model, optimizer, build_scheduler(optimizer, config, plan.iterations), plan.compute.scaler())


def make_loader(samples: TrainingSet, plan: Plan, start: int, workers: int) -> DataLoader[Batch]:
    """This process's rows of the batches of the plan's iterations from `start` on, decoded by `workers` processes."""
    stream = BatchStream(len(samples), plan.batch_size, plan.seed, start, plan.iterations, plan.rows)
    # A generator of its own: the loader would otherwise draw from, and so disturb, the global one.
    return DataLoader(
        cast(Any, samples),
        batch_sampler=cast(Any, stream),
        collate_fn=collate,
        num_workers=workers,
        pin_memory=plan.compute.device.type == "cuda",
        generator=torch.Generator(),
        worker_init_fn=ignore_interrupts,
    )
