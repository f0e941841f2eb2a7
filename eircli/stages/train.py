"""`eir train`: one step."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from eircli.common.distributed import broadcast_from_main, world_size
from eircli.common.errors import UserError
from eircli.common.progress import Say
from eircli.common.seeds import derive_seed
from eircli.common.types import Batch
from eircli.config.manifest import StepTraining
from eircli.engine.checkpoint import load_state, save_state
from eircli.engine.device import Compute, choose_compute
from eircli.engine.journal import Journal
from eircli.engine.optim import build_optimizer, build_scheduler
from eircli.engine.parallel import communication
from eircli.engine.threads import use_threads
from eircli.engine.train import Plan, TrainState, fit
from eircli.memory.codecs import check_codec
from eircli.methods import build_method
from eircli.model.acceleration import accelerate
from eircli.model.backbones import weights_license
from eircli.model.deeplab import DeepLab
from eircli.model.similar import start_from_similar
from eircli.run.main_process import is_done
from eircli.run.models import checkpoint_recipe, save_model, start_of
from eircli.run.run import Run
from eircli.run.step import calibration_pass, make_context, make_loader, make_plan, training_set
from eircli.stages.base_steps import base_step_facts, base_step_lock, publish_base_step, reuse_base_step
from eircli.stages.build_memory import build_memory

PERMISSIVE = ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "mit")
"""Licences of weights under which they may be used for anything."""


def train(run: Run, step: int, say: Say, again: bool = False) -> None:
    """Train a step, resuming where an interrupted run stopped; a finished step is left alone unless `again`.

    Raises:
        UserError: the step before is not trained, its batches cannot be split, or something it needs is missing or
            damaged.
        RunFailed: a loss is no longer finite.
    """
    run.check_step(step)
    check_settings(run, step)
    if not again and is_done(run, step, "checkpoint"):
        say(f"step {step} is trained already: {run.directory.checkpoint(step)} (--again trains it anew)")
        return
    if step > 0 and not is_done(run, step - 1, "checkpoint"):
        raise UserError(
            f"step {step} starts from step {step - 1}, which is not trained; run: eir train {run.directory.name} --step {step - 1}"
        )
    if again:
        broadcast_from_main(lambda: run.directory.resume_file(step).unlink(missing_ok=True))
    if step > 0 and run.manifest.memory_kind and not is_done(run, step, "bank"):
        build_memory(run, step, say)
    compute = choose_compute(run.manifest.runtime)
    use_threads(run.manifest, compute, step)
    if step > 0 or not run.manifest.runtime.share_base_step:
        _train(run, step, compute, say)
        return
    with base_step_lock(run, say):
        if again or not reuse_base_step(run, say):
            _train(run, step, compute, say)
            publish_base_step(run)


def check_settings(run: Run, step: int) -> None:
    """Refuse a batch size that cannot be split evenly, a method whose losses cannot, an encoding that Pillow lacks.

    Raises:
        UserError: naming the key.
    """
    if (kind := run.manifest.memory_kind) is not None and kind.bounded:
        check_codec(run.manifest.memory.encoding)
    config, key = run.manifest.training(step), "train.batch_size" if step else "train.base.batch_size"
    parts, method = world_size() * config.accumulate, run.manifest.method
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


def _train(run: Run, step: int, compute: Compute, say: Say) -> None:
    start, directory = start_of(run, step), run.directory
    memory = directory.verify(step, "bank") if step > 0 and run.manifest.memory_kind else None
    samples = training_set(run, step, memory)
    plan = make_plan(run, step, len(samples), compute)
    accelerate(start.model, start.teacher, run.manifest.runtime, compute.device.type, compute.dtype)
    model = start.model.to(compute.device)
    state = _start_state(run.manifest.training(step), model, plan)
    method = build_method(run.manifest.method, make_context(run, step, start.teacher, memory, plan, start.method_state))

    def calibration() -> Iterator[Batch]:
        return calibration_pass(samples, plan, run.workers)

    if broadcast_from_main(directory.resume_file(step).exists):
        _resume(run, step, state, len(samples))
        say(f"step {step}: going on at iteration {state.iteration} of {plan.iterations}")
    elif start.teacher is not None and run.manifest.model.new_classifier == "similar":
        seed = derive_seed(run.manifest.seed, "similar", step)
        with compute.autocast():
            start_from_similar(model, start.teacher, calibration(), torch.Generator().manual_seed(seed))
    loader = make_loader(samples, plan, state.iteration, run.workers)

    with compute.autocast():
        method.begin(model, calibration)
    say(describe_plan(run, step, model, plan))
    if step == 0 and (license := weights_license(run.manifest.model)) not in (None, *PERMISSIVE):
        say(f"step 0: the starting weights' licence is {license}: see what it allows before using the model for more than a look")
    facts = {
        "iterations": plan.iterations,
        "samples": len(samples),
        "processes": world_size(),
        "sent_bytes": sent_bytes(model, plan),
        "device": compute.device.type,
        "threads": torch.get_num_threads(),
        "precision": str(compute.dtype),
    }
    mark = {"recipe": checkpoint_recipe(run, step), "samples": len(samples)}
    fit(
        state,
        method,
        loader,
        plan,
        Journal(directory.journal(step), state.iteration),
        save=lambda current: save_state(directory.resume_file(step), mark | current.state_dict()),
    )
    if step == 0:
        facts |= base_step_facts(run)
    with compute.autocast():
        left = method.end(model, calibration)
    save_model(run, step, model, left, **facts)
    broadcast_from_main(lambda: directory.resume_file(step).unlink(missing_ok=True))


def describe_plan(run: Run, step: int, model: DeepLab, plan: Plan) -> str:
    """A line for the user: how batches are split, the learning rate, and the bytes that processes all-reduce."""
    config, factors = run.manifest.training(step), _factors(plan.accumulate)
    shared_out = f" = {factors} × {len(plan.rows) // plan.accumulate}" if factors else ""
    line = f"step {step}: batch {plan.batch_size}{shared_out}, learning rate {config.lr:g}"
    if world_size() == 1:
        return line
    sent = communication(model)
    return (
        f"{line}; summed per iteration: {sent.gradients:,} bytes of gradients, {plan.accumulate * sent.batchnorm:,} of BatchNorm"
    )


def _factors(accumulate: int) -> str:
    """The numbers, where more than 1, of processes and micro-batches, in words."""
    return " × ".join(f"{n} {what}" for n, what in ((world_size(), "processes"), (accumulate, "micro-batches")) if n > 1)


def sent_bytes(model: DeepLab, plan: Plan) -> int:
    """The bytes that a process all-reduces per iteration."""
    sent = communication(model)
    return sent.gradients + plan.accumulate * sent.batchnorm if world_size() > 1 else 0


def _resume(run: Run, step: int, state: TrainState[DeepLab], samples: int) -> None:
    path = run.directory.resume_file(step)
    saved = load_state(path, checkpoint_recipe(run, step), "delete it to start the step afresh")
    if saved["samples"] != samples:
        raise UserError(
            f"{path}: was trained on {saved['samples']} samples, there are now {samples}; "
            "put the data set back, or delete this file to start the step afresh"
        )
    state.load_state_dict(saved)


def _start_state(config: StepTraining, model: DeepLab, plan: Plan) -> TrainState[DeepLab]:
    model.train_mode(config.frozen_batchnorm, config.dropout)
    optimizer = build_optimizer(model.parameter_groups(), config, fused=not plan.compute.scaler().is_enabled())
    return TrainState(model, optimizer, build_scheduler(optimizer, config, plan.iterations), plan.compute.scaler())
