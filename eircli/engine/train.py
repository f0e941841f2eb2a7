"""The training loop: batches in, an optimised model out. It knows nothing of continual learning."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from eircli.engine.device import Compute
from eircli.engine.feed import Feed
from eircli.engine.interrupt import deferred_interrupt
from eircli.engine.journal import Journal
from eircli.errors import RunFailed
from eircli.progress import progress
from eircli.seeds import derive_seed
from eircli.types import Batch

ModelT = TypeVar("ModelT", bound=nn.Module)
Losses = dict[str, Tensor]


class Objective(Protocol[ModelT]):  # type: ignore[misc]
    """What the loop asks of a method."""

    def prepare(self, batch: Batch) -> Batch: ...

    def losses(self, model: ModelT, batch: Batch) -> Losses: ...


@dataclass
class TrainState(Generic[ModelT]):
    """All that changes in training. Random draws are functions of seed and iteration, so they need no state."""

    model: ModelT
    optimizer: SGD
    scheduler: LambdaLR
    scaler: torch.amp.GradScaler
    iteration: int = 0

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "scheduler", "scaler")}
        return parts | {"iteration": self.iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        for name in ("model", "optimizer", "scheduler", "scaler"):
            getattr(self, name).load_state_dict(state[name])
        self.iteration = state["iteration"]


@dataclass(frozen=True)
class Plan:
    """How a step is trained."""

    iterations: int
    batch_size: int
    per_epoch: float
    """Iterations of one pass over the samples."""
    seed: int
    compute: Compute
    clip_grad_norm: float | None
    log_every: int
    save_minutes: float
    save_epochs: float | None
    title: str


def fit(
    state: TrainState[ModelT],
    objective: Objective[ModelT],
    batches: Iterable[Batch],
    plan: Plan,
    journal: Journal,
    save: Callable[[TrainState[ModelT]], None],
) -> None:
    """Train to the plan's end; `batches` start at the state's iteration.

    Raises:
        RunFailed: a loss is no longer finite; what was saved before stays.
        KeyboardInterrupt: the user asked to stop; the state has been saved.
    """
    feed = Feed(batches, plan.compute.device)
    log = _Log(plan, state.iteration, journal)
    saved = time.monotonic()
    bar = progress(
        plan.title, plan.iterations, "images", scale=plan.batch_size, every=max(plan.per_epoch, 1), done=state.iteration
    )
    with deferred_interrupt() as interrupt, bar as reporter:
        for batch in feed:
            log.add(train_step(state, objective, batch, plan))
            last = state.iteration == plan.iterations
            due = not last and (interrupt.asked or _save_is_due(state.iteration, saved, plan))
            if last or due or state.iteration % plan.log_every == 0:
                log.flush(state, feed)
            if due:
                save(state)
                saved = time.monotonic()
            if interrupt.asked and not last:
                raise KeyboardInterrupt
            reporter.advance(note=log.note)


def train_step(state: TrainState[ModelT], objective: Objective[ModelT], batch: Batch, plan: Plan) -> Losses:
    """One iteration. Returns the named losses, detached."""
    seed = derive_seed(plan.seed, "iteration", state.iteration)
    device = plan.compute.device
    seed_generators(seed, device)
    batch = batch.to(device, seed)
    with plan.compute.autocast():
        with torch.no_grad():
            batch = objective.prepare(batch)
        losses = objective.losses(state.model, batch)
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(torch.stack(list(losses.values())).sum()).backward()  # type: ignore[no-untyped-call]
    if plan.clip_grad_norm is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), plan.clip_grad_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.scheduler.step()
    state.iteration += 1
    return {name: loss.detach() for name, loss in losses.items()}


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's generator of the CPU and of the device, and no other: dropout draws from them."""
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
    """Sums the losses on the device, and looks at them every so often: a look waits for the device."""

    def __init__(self, plan: Plan, iteration: int, journal: Journal) -> None:
        self.plan, self.journal = plan, journal
        self.sums: Losses = {}
        self.since, self.started = iteration, time.monotonic()
        self.note = ""

    def add(self, losses: Losses) -> None:
        for name, loss in losses.items():
            self.sums[name] = self.sums[name] + loss if name in self.sums else loss

    def flush(self, state: TrainState[Any], feed: Feed) -> None:
        count = state.iteration - self.since
        if count == 0:
            return
        means = {name: float(total) / count for name, total in self.sums.items()}
        if broken := [name for name, mean in means.items() if not -float("inf") < mean < float("inf")]:
            raise RunFailed(
                f"{self.plan.title}: the loss '{broken[0]}' is not finite at iteration {state.iteration}; the last good checkpoint is kept. "
                "Try a lower train.lr, a longer train.warmup, or train.clip_grad_norm=2"
            )
        waited = feed.waited()
        now = time.monotonic()
        speed = count * self.plan.batch_size / (now - self.started)
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
