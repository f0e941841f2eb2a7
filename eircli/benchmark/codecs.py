"""What exemplars of a recipe's images cost in bytes, error and decoding time, by format: `python -m eircli.benchmark.codecs RECIPE`."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Hashable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import numpy as np

from eircli.benchmark.report import ExemplarBytes
from eircli.common.types import Exemplar, Instance
from eircli.config.memory_kinds import MEMORY_KINDS
from eircli.memory.codecs import Encoding, decode_pixels
from eircli.memory.encoded import EncodedExemplar, encode
from eircli.memory.kinds import memory_kind
from eircli.memory.kinds.base import Harvest
from eircli.memory.kinds.exemplars import ExemplarKind
from eircli.model.backbones import normalisation
from eircli.run.run import Run, open_run

FORMATS: tuple[tuple[Encoding, int], ...] = (("jpeg", 95), ("jpeg", 75), ("jpeg", 60), ("webp", 75), ("avif", 60))
"""What is measured: formats and qualities, the first of which the others' times are compared with."""

IMAGES, ROUNDS = 60, 5
"""Images whose exemplars are encoded; rounds of decoding them."""


class FormatCost(NamedTuple):
    """What a kind's exemplars cost in a format."""

    kind: str
    encoding: str
    quality: int
    exemplars: int
    bytes: float
    """Of an exemplar, as a budget counts it: the mean."""
    psnr: float
    """Of its pixels, of an instance inside its mask, in dB: the mean over the exemplars."""
    decoding: float
    """Time to decode its pixels, as a multiple of the first format's: the median of rounds in turns."""


def format_costs(run: Run, images: int, formats: Sequence[tuple[Encoding, int]] = FORMATS) -> list[FormatCost]:
    """What the exemplars cost that some of the base step's images offer, for every kind that keeps any."""
    found = []
    for name in MEMORY_KINDS:
        kind = memory_kind(name)
        if isinstance(kind, ExemplarKind):
            exemplars = _offered(run, kind, images)
            records = [[encode(one, *format_) for one in exemplars] for format_ in formats]
            rounds = [[_seconds(some) for some in records] for _ in range(ROUNDS)]
            for number, (format_, some) in enumerate(zip(formats, records, strict=True)):
                psnr = mean(_psnr(one, record) for one, record in zip(exemplars, some, strict=True))
                times = median(row[number] / row[0] for row in rounds)
                found.append(FormatCost(name, *format_, len(some), mean(record.size for record in some), psnr, times))
    return found


def exemplar_bytes(run: Run, images: int = 32) -> ExemplarBytes | None:
    """What the exemplars that the recipe's method keeps of some of the base step's images cost a bank.

    None if it keeps none, or the images hold none that may be kept.
    """
    entry, memory = run.manifest.memory_kind, run.manifest.memory
    kind = None if entry is None else memory_kind(entry.name)
    if not isinstance(kind, ExemplarKind):
        return None
    sizes = [encode(one, memory.encoding, memory.quality).size for one in _offered(run, kind, images)]
    return ExemplarBytes(len(sizes), mean(sizes), median(sizes)) if sizes else None


def _offered(run: Run, kind: ExemplarKind, images: int) -> list[Exemplar]:
    """Every candidate in evenly spaced images of the base step, an image once."""
    view, manifest = run.training_view(0), run.manifest
    new = dict(enumerate(run.schedule.new(0), 1))
    harvest = Harvest(0, view, new, manifest.memory, normalisation(manifest.model.backbone).canvas)
    chosen: dict[Hashable, Exemplar] = {}
    for image in np.unique(np.linspace(0, len(view) - 1, images).astype(int)).tolist():
        for number, one in enumerate(kind.find(view, list(new), image, manifest.memory)):
            made = kind.make_exemplar(harvest, one)
            chosen.setdefault(kind.dedup_key(one.channel, 1000 * image + number, made.source), made)
    return list(chosen.values())


def _psnr(exemplar: Exemplar, record: EncodedExemplar) -> float:
    error = (decode_pixels(record.pixels).astype(float) - exemplar.image) ** 2
    counted = (error[exemplar.mask] if isinstance(exemplar, Instance) else error).mean()
    return float(10 * np.log10(255**2 / counted)) if counted else math.inf


def _seconds(records: Sequence[EncodedExemplar]) -> float:
    started = time.perf_counter()
    for record in records:
        decode_pixels(record.pixels)
    return time.perf_counter() - started


def main(recipe: str, *overrides: str) -> None:
    """Print the costs as a table."""
    run = open_run(Path(recipe), overrides, look_only=True).checked()
    print("| exemplars | format | bytes | PSNR | decoding |\n| --- | --- | ---: | ---: | ---: |")
    for cost in format_costs(run, IMAGES):
        what = f"{cost.kind} ({cost.exemplars}) | {cost.encoding} {cost.quality}"
        print(f"| {what} | {cost.bytes:,.0f} | {cost.psnr:.1f} | {cost.decoding:.1f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
