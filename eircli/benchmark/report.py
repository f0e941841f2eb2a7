"""What a benchmark has measured, as `eir bench --json` prints it."""

from __future__ import annotations

from dataclasses import dataclass

from eircli.benchmark.measure import Cost


@dataclass(frozen=True)
class StepEstimate:
    """The images and hours of one step of a recipe."""

    step: int
    samples: int
    trained_images: int
    test_images: int
    hours: float


@dataclass(frozen=True)
class Estimate:
    """Hours of every step of a recipe, and in all."""

    steps: list[StepEstimate]
    hours: float
    precision: str
    """The dtype that was measured."""


@dataclass(frozen=True)
class ExemplarBytes:
    """Bytes per stored exemplar."""

    exemplars: int
    mean: float
    median: float


@dataclass(frozen=True)
class Machine:
    """What figures were measured on."""

    processor: str
    threads: int
    device: str
    instructions: str
    """The processor's vector instructions."""
    torch: str
    system: str


@dataclass(frozen=True)
class Utilisation:
    """Device utilisation of an incremental iteration."""

    gflop_per_image_and_pass: float
    gflop_per_second: float
    matrix_multiplication_gflop_per_second: float
    share: float
    """Of the matrix multiplication's rate."""
    incremental_over_fine_tuning: float


@dataclass(frozen=True)
class BenchReport:
    """What `eir bench` has measured."""

    machine: Machine
    sections: dict[str, list[Cost]]
    """Rows by the title of their section."""
    exemplar_bytes: ExemplarBytes | None
    utilisation: dict[str, Utilisation]
    """By dtype."""
    estimate: Estimate


@dataclass(frozen=True)
class GrowthTable:
    """What something costs at growing sizes of something else."""

    sizes: list[int]
    rows: dict[str, list[float | None]]
    """What is measured, with its unit → its figure at each size; None where it was not measured."""


@dataclass(frozen=True)
class GrowthReport:
    """What `eir bench --growth` has measured."""

    machine: Machine
    growth: dict[str, GrowthTable]
    """By varied quantity."""
