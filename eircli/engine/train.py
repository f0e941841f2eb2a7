"""The training loop: batches in, an optimised model out. It has no method-specific code."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from eircli.common.distributed import all_reduce_sum, any_process, broadcast_from_main, is_main_process, rank, world_size
from eircli.common.errors import RunFailed
from eircli.common.progress import progress
from eircli.common.seeds import derive_seed
from eircli.common.types import Batch
from eircli.engine.checkpoint import State
from eircli.engine.data_timer import DataTimer
from eircli.engine.device import Compute
from eircli.engine.interrupt import deferred_interrupt
from eircli.engine.journal import Journal
from eircli.engine.parallel import Losses, ModelT, Objective, build_learner, no_sync_if


@dataclass
class TrainState(Generic[ModelT]):
    """Mutable training state. Random draws are functions of seed and iteration, so they need no state."""

    model: ModelT
    optimizer: Optimizer
    scheduler: LambdaLR
    scaler: GradScaler
    iteration: int = 0
    average: State = field(default_factory=dict)
    """The moving average of the model's state; empty without one."""

    def state_dict(self) -> State:
        """Everything a resumed run needs."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "scheduler", "scaler")}
        return parts | {"iteration": self.iteration, "average": self.average}

    def load_state_dict(self, state: State) -> None:
        """Restore a saved state."""
        for name in ("model", "optimizer", "scheduler", "scaler"):
            getattr(self, name).load_state_dict(state[name])
        self.iteration = state["iteration"]
        devices = {name: value.device for name, value in self.model.state_dict().items()}
        self.average = {name: value.to(devices[name]) for name, value in state["average"].items()}

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """average ← decay · average + (1 - decay) · model; the first time the model itself. Counters are copied.

        Early on less is kept, (1 + n) / (10 + n) after n iterations, lest the average remembers where training began.
        """
        decay = min(decay, (1 + self.iteration) / (10 + self.iteration))
        for name, value in self.model.state_dict().items():
            if name not in self.average or not value.is_floating_point():
                self.average[name] = value.clone()
            else:
                self.average[name].lerp_(value, 1 - decay)


@dataclass(frozen=True)
class Plan:
    """How a step is trained."""

    iterations: int
    batch_size: int
    """Samples per iteration, of all processes and micro-batches together."""
    accumulate: int
    """Micro-batches per iteration."""
    partly_unused: bool
    """Whether some parameters may get no gradient."""
    per_epoch: float
    """Iterations of one pass over the samples."""
    seed: int
    compute: Compute
    clip_grad_norm: float | None
    ema: float | None
    """Decay per iteration of the moving average of the model; None without one."""
    log_every: int
    save_minutes: float
    save_epochs: float | None
    title: str

    @property
    def rows(self) -> range:
        """The positions in a batch of this process's samples."""
        own = self.batch_size // world_size()
        return range(rank() * own, (rank() + 1) * own)


def fit(
    state: TrainState[ModelT],
    objective: Objective[ModelT],
    batches: Iterable[Batch],
    plan: Plan,
    journal: Journal,
    save: Callable[[TrainState[ModelT]], None],
) -> None:
    """Train to the plan's last iteration.

    Args:
        state: advanced in place, from its iteration on; at the end its model is the moving average, where there is one.
        batches: from that iteration on, the plan's `rows` of each.
        save: writes the state of an unfinished step; called in the main process.


    Raises:
        RunFailed: a loss is no longer finite; what was saved before stays.
        KeyboardInterrupt: the user asked to stop; the state has been saved.
    """
    feed = DataTimer(batches, plan.compute.device)
    learner = build_learner(state.model, objective, plan.partly_unused)
    log = _Log(plan, state.iteration, journal)
    saved = time.monotonic()
    bar = progress(
        plan.title, plan.iterations, "images", scale=plan.batch_size, every=max(plan.per_epoch, 1), done=state.iteration
    )
    with deferred_interrupt() as interrupt, bar as reporter:
        for batch in feed:
            log.add(train_step(state, objective, learner, batch, plan))
            if plan.ema is not None:
                state.update_average(plan.ema)
            last = state.iteration == plan.iterations
            # Clocks and signals differ between processes, which must all take the same branch.
            asked, time_to_save = any_process(interrupt.asked, is_main_process() and _save_is_due(state.iteration, saved, plan))
            due = not last and (asked or time_to_save)
            if last or due or state.iteration % plan.log_every == 0:
                log.flush(state, feed)
            if due:
                broadcast_from_main(lambda: save(state))
                saved = time.monotonic()
            if asked and not last:
                raise KeyboardInterrupt
            reporter.advance(note=log.note)
    if state.average:
        state.model.load_state_dict(state.average)


def train_step(state: TrainState[ModelT], objective: Objective[ModelT], learner: nn.Module, batch: Batch, plan: Plan) -> Losses:
    """One iteration. Returns the named losses of this process's part of the batch, detached."""
    seed = derive_seed(plan.seed, "iteration", state.iteration)
    device = plan.compute.device
    seed_generators(derive_seed(seed, "process", rank()) if rank() else seed, device)
    parts = _parts(objective, batch.to(device, seed), plan)
    state.optimizer.zero_grad(set_to_none=True)
    total: Losses = {}
    for number, part in enumerate(parts, start=1):
        with no_sync_if(learner, keep=number < len(parts)):
            with plan.compute.autocast():
                with torch.no_grad():
                    part = objective.prepare(part)
                losses = {name: loss / len(parts) for name, loss in learner(part).items()}
            state.scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        total = {name: total.get(name, 0) + loss.detach() for name, loss in losses.items()}
    if plan.clip_grad_norm is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), plan.clip_grad_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.scheduler.step()
    state.iteration += 1
    return total


def _parts(objective: Objective[ModelT], batch: Batch, plan: Plan) -> list[Batch]:
    """This process's micro-batches of a batch, each with its position in the whole and the divisor of its means over pixels."""
    parts = world_size() * plan.accumulate
    if parts == 1:
        return [batch]
    size = plan.batch_size // parts
    pixel_count = all_reduce_sum(objective.counted_pixels(batch).sum()) / parts
    return [
        batch.cut(slice(start, start + size)).with_(part=(plan.rows.start + start, plan.batch_size), pixel_count=pixel_count)
        for start in range(0, len(plan.rows), size)
    ]


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's default generators of the CPU and of the device, from which dropout draws."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _save_is_due(iteration: int, saved: float, plan: Plan) -> bool:
    if time.monotonic() - saved >= 60 * plan.save_minutes:
        return True
    if plan.save_epochs is None:
        return False
    interval = plan.save_epochs * plan.per_epoch
    return int(iteration / interval) > int((iteration - 1) / interval)


class _Log:
    """Accumulates the losses on the device and reads them every `log_every` iterations: reading synchronises."""

    def __init__(self, plan: Plan, iteration: int, journal: Journal) -> None:
        self.plan, self.journal = plan, journal
        self.sums: Losses = {}
        self.since, self.started = iteration, time.monotonic()
        self.note = ""

    def add(self, losses: Losses) -> None:
        for name, loss in losses.items():
            self.sums[name] = self.sums[name] + loss if name in self.sums else loss

    def flush(self, state: TrainState[Any], feed: DataTimer) -> None:
        iterations = state.iteration - self.since
        if iterations == 0:
            return
        totals = all_reduce_sum(torch.stack(list(self.sums.values()))) / world_size()
        means = dict(zip(self.sums, (totals / iterations).tolist(), strict=True))
        if broken := [name for name, mean in means.items() if not -float("inf") < mean < float("inf")]:
            raise RunFailed(
                f"{self.plan.title}: the loss '{broken[0]}' is not finite at iteration {state.iteration}; the last good checkpoint is kept. "
                "Try a lower train.lr, a longer train.warmup, or train.clip_grad_norm=2"
            )
        waited = feed.waited()
        now = time.monotonic()
        speed = iterations * self.plan.batch_size / (now - self.started)
        data_wait = round(min(1.0, waited / (now - self.started)), 3)
        lr = state.optimizer.param_groups[0]["lr"]
        epoch = state.iteration / self.plan.per_epoch
        self.journal.write(
            iteration=state.iteration,
            epoch=round(epoch, 3),
            lr=lr,
            images_per_second=round(speed, 2),
            data_wait=data_wait,
            losses={k: round(v, 6) for k, v in means.items()},
        )
        losses = (f"{name} {mean:.3f}" for name, mean in means.items())
        self.note = "  ".join([*losses, f"lr {lr:.2g}", f"data {data_wait:.0%}"])
        self.sums, self.since, self.started = {}, state.iteration, now
