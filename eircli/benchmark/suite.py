"""`eir bench`: the costs of steps of EIR and of fine-tuning, of evaluation, data and banks on this machine; a recipe's hours."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from eircli.benchmark.codecs import exemplar_bytes
from eircli.benchmark.estimate import Speeds, estimate
from eircli.benchmark.measure import Cost
from eircli.benchmark.parts import (
    bank_costs,
    composition_case,
    loss_case,
    prediction_case,
    query_case,
    reading_case,
    sample_case,
    startup_case,
)
from eircli.benchmark.report import BenchReport, Utilisation
from eircli.benchmark.settings import Settings, machine
from eircli.benchmark.steps import forward_flops, matmul_case, step_cases
from eircli.benchmark.synthetic_inputs import write_synthetic_images
from eircli.config.manifest import Manifest
from eircli.config.methods import DEFAULT_METHOD
from eircli.config.recipe import resolve
from eircli.engine.device import Compute
from eircli.model.backbones import build_backbone
from eircli.run.run import Run
from eircli.run.rundir import RunDir
from eircli.run.step import make_loader, make_plan, training_set

CHANNELS = (21, 151)
"""Of the rows whose cost may depend on them: those of PASCAL VOC and of ADE20K."""

BANKS = (100, 1_000_000)


def measure_all(run: Run, settings: Settings) -> BenchReport:
    """Measure everything with the recipe's network, crop and data."""
    manifest, device = run.manifest, settings.compute.device
    side, stride = manifest.data.crop_size, build_backbone(manifest.model, load_weights=False).stride
    slot = manifest.method.slot_side or side // 2
    sections = {
        "command": settings.costs([startup_case()]),
        "data": [*settings.costs([sample_case(run), reading_case(run), query_case()]), loader_cost(run, settings)],
        "parts of a step": settings.costs(
            [
                *(composition_case(2, channels, side, slot, device) for channels in CHANNELS),
                *(loss_case(2, channels, side, stride, device) for channels in CHANNELS),
            ]
        ),
        "evaluation": settings.costs(prediction_case(2, channels, side, stride, device) for channels in CHANNELS),
        "bank": [row for count in BANKS for row in bank_costs(count, settings)],
    }
    steps = {precision: step_costs(run, settings, precision) for precision in precisions(settings.compute)}
    for precision, rows in steps.items():
        sections[f"whole step of {settings.batch} images, {manifest.model.backbone}, {_short(precision)}"] = rows[:-1]
    chosen = steps[settings.compute.dtype]
    per_image = 1 / (1000 * settings.batch)
    speeds = Speeds(
        base=chosen[1].milliseconds * per_image,
        incremental=chosen[0].milliseconds * per_image,
        evaluate=chosen[2].milliseconds * per_image + sections["evaluation"][0].milliseconds / 1000,
        load=sections["data"][-1].milliseconds / 1000,
    )
    return BenchReport(
        machine=machine(device),
        sections=sections,
        exemplar_bytes=exemplar_bytes(run),
        utilisation={_short(precision): utilisation(run, settings, rows) for precision, rows in steps.items()},
        estimate=estimate(run, speeds, _short(settings.compute.dtype)),
    )


def step_costs(run: Run, settings: Settings, dtype: torch.dtype) -> list[Cost]:
    """The whole step, a fine-tuning step, the passes through the network; and, last, a matrix multiplication."""
    compute = Compute(settings.compute.device, dtype)
    cases = step_cases(without_weights(run), classes_of(run), settings.batch, compute, settings.against_plain)
    return [*settings.costs(cases), *settings.costs([matmul_case(compute)[0]])]


def classes_of(run: Run) -> tuple[int, int]:
    """Old and new classes of the recipe's last step; of a joint one, as if its last class were new."""
    last = len(run.schedule) - 1
    count = len(run.schedule.seen(last))
    new = len(run.schedule.new(last)) if last else 1
    return max(count - new, 1), new


def utilisation(run: Run, settings: Settings, rows: list[Cost]) -> Utilisation:
    """What share of the device's matrix multiplication rate an incremental step reaches.

    A step needs five passes' worth: three of the student, forward and backward, one of the teacher on the images and one on
    the composed ones.
    """
    step, fine_tuning, matmul = rows[0].milliseconds, rows[1].milliseconds, rows[-1].milliseconds
    rate = matmul_case(settings.compute)[1] / matmul / 1e6
    flops = forward_flops(without_weights(run), classes_of(run))
    reached = 5 * settings.batch * flops / step / 1e6
    return Utilisation(flops / 1e9, reached, rate, reached / rate, step / fine_tuning)


def loader_cost(run: Run, settings: Settings) -> Cost:
    """An image by the data loader, including workers, in steady state."""
    batches, skipped = 8, 2
    samples = training_set(run, 0, None)
    plan = replace(make_plan(run, 0, len(samples), settings.compute), iterations=batches, batch_size=8)
    name = f"the same by the loader, {run.workers} workers"
    settings.say(f"measuring: {name}")
    started, number = 0.0, 0
    for number, _ in enumerate(make_loader(samples, plan, 0, run.workers), start=1):
        if number == skipped:
            started = time.perf_counter()
    taken = time.perf_counter() - started
    return Cost(name, 1000 * taken / (plan.batch_size * (number - skipped)), None, None, None, None)


def precisions(compute: Compute) -> list[torch.dtype]:
    """What steps are measured in: float32, bfloat16 where the device has it, and the run's own."""
    fast = compute.device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return list(dict.fromkeys([torch.float32, *([torch.bfloat16] if fast else []), compute.dtype]))


@contextmanager
def made_up_run(overrides: list[str]) -> Iterator[Run]:
    """A run without a recipe: the paper's PASCAL VOC setting, on a few drawn images of VOC size."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        write_synthetic_images(root)
        recipe = {
            "name": "bench",
            "dataset": {"kind": "folder", "root": str(root)},
            "protocol": {"schedule": "15-5"},
            "method": {"name": DEFAULT_METHOD},
        }
        manifest = resolve(recipe, overrides, "eir bench")
        yield Run(RunDir(Path(folder) / "run", manifest, "bench"))


def without_weights(run: Run) -> Manifest:
    """The manifest with a network of random weights: it costs what a trained one does, with no download."""
    model = run.manifest.model.model_copy(update={"weights": "none"})
    return run.manifest.model_copy(update={"model": model})


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
