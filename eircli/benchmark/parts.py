"""The parts of a training step and of an evaluation, each beside its reference implementation."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from eircli.benchmark.measure import Case, Cost
from eircli.benchmark.plain import plain_fuse, plain_predict
from eircli.benchmark.settings import Settings
from eircli.benchmark.synthetic_inputs import LossInput, synthetic_batch, synthetic_instances, synthetic_labels
from eircli.config.protocols import parse_schedule
from eircli.data.training_set import TrainingSet
from eircli.data.transforms import TrainTransform
from eircli.memory import fusion, replay
from eircli.memory.bank import Bank
from eircli.memory.synthetic import synthetic_bank
from eircli.methods.measured import plain_losses
from eircli.methods.tiled_losses import tiled_losses
from eircli.model.deeplab import predict
from eircli.run.run import Run

PASTES = 3


def startup_case() -> Case:
    """Starting the command and printing its help, without torch."""
    command = [sys.executable, "-m", "eircli", "--help"]
    return Case("eir --help", lambda: subprocess.run(command, check=True, capture_output=True))


def loss_case(n: int, channels: int, side: int, stride: int, device: torch.device) -> Case:
    """Both losses of a batch and their gradient; per batch."""
    given = LossInput(n, channels, side, stride, device)

    def tiled() -> None:
        bce, rskd = tiled_losses(given.student, given.targets, given.teacher, given.region)
        torch.autograd.grad(bce + 5 * rskd, given.student)

    def plain() -> None:
        bce, rskd = plain_losses(given.student, given.targets, given.teacher, given.region)
        torch.autograd.grad(bce + 5 * rskd, given.student)

    return Case(f"losses and gradient, batch of {n}, {channels} channels", tiled, plain, memory=True)


def prediction_case(n: int, channels: int, side: int, stride: int, device: torch.device) -> Case:
    """From the network's logits to predictions; per image."""
    logits, size = LossInput(n, channels, side, stride, device).student.detach(), (side, side)
    name = f"prediction after the network, {channels} channels"
    return Case(name, lambda: predict(logits, size=size), lambda: plain_predict(logits, size), per=n)


def composition_case(n: int, channels: int, side: int, slot: int, device: torch.device) -> Case:
    """Draws, potential classes, slots and three pastes; per image."""
    old = channels - 2
    images = synthetic_batch(n, side, [], device).images
    labels, combined = (synthetic_labels(n, side, shown, device) for shown in ([channels - 1], [channels - 1, 1, 2]))
    instances = synthetic_instances(old, 4, min(150, slot), device)

    def placed() -> tuple[replay.Pastes, replay.Draws]:
        draws = replay.draw(np.random.default_rng(0), n, PASTES, 0.5, (1.0, 1.0)).to(device)
        potential = replay.potential_classes(labels, combined, old, PASTES)
        slots = replay.select_slots(combined, slot, PASTES)
        return replay.place(potential, slots, instances, draws, "best-slot", PASTES), draws

    def batched() -> None:
        fusion.fuse(images, combined, instances, *placed(), slot)

    def plain() -> None:
        plain_fuse(images, combined, instances, *placed(), slot, channels)

    return Case(f"composition, {PASTES} instances, {channels} channels", batched, plain, per=n)


def sample_case(run: Run) -> Case:
    """One training sample of the recipe's data: decoded, cropped, flipped, labels mapped."""
    samples = TrainingSet([run.training_view(0)], TrainTransform(run.manifest.data))
    count = min(len(samples), 8)

    def load() -> None:
        for position in range(count):
            samples[position, position]

    return Case("one training sample", load, per=count)


def query_case(images: int = 10_582, classes: int = 20) -> Case:
    """Selecting the images of a step from the class index."""
    presence = np.random.default_rng(0).random((images, 1 + classes)) < 0.08
    schedule = parse_schedule("15-1", classes)
    return Case(f"which of {images:,} images a step trains on", lambda: schedule.select(presence, 2, "train"))


def reading_case(run: Run) -> Case:
    """Reading the classes of an image's label file; per image."""
    split, count = run.dataset.train, min(len(run.dataset.train), 8)

    def read() -> None:
        for position in range(count):
            split.present(position)

    return Case("reading an image's classes, once ever", read, per=count)


def bank_cases(path: Path, count: int) -> list[Case]:
    """Opening a bank, and drawing a random instance of one of its classes from the file."""
    bank, generator = Bank(path), np.random.default_rng(0)
    classes = list(bank.classes)

    def draws() -> None:
        for _ in range(20):
            bank.draw(classes[int(generator.integers(len(classes)))], generator)

    return [
        Case(f"opening a bank of {count:,}", lambda: len(Bank(path)), memory=True),
        Case(f"a random instance out of {count:,}", draws, per=20),
    ]


def bank_costs(count: int, settings: Settings) -> list[Cost]:
    """Of a bank of `count` made-up instances, in a temporary file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank.h5"
        settings.say(f"writing a bank of {count:,}")
        synthetic_bank(path, count)
        return settings.costs(bank_cases(path, count))
