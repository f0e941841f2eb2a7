"""What a check of a data set has found, as `eir check-data --json` prints it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eircli.common.errors import UserError

Severity = Literal["error", "oddity"]


@dataclass(frozen=True)
class Finding:
    """Something wrong or odd, in one line."""

    severity: Severity
    """An error keeps a run from running, or makes its figures wrong; an oddity may be meant."""
    place: str
    """The file or folder, or the class."""
    message: str

    @property
    def line(self) -> str:
        """Where, and what."""
        return f"{self.place}: {self.message}"


def error_of(error: UserError) -> Finding:
    """The finding that a user error is; its message begins with the file."""
    return _finding("error", str(error))


def oddity_of(line: str) -> Finding:
    """The finding in a line that begins with its place."""
    return _finding("oddity", line)


def _finding(severity: Severity, line: str) -> Finding:
    place, separator, message = line.partition(": ")
    return Finding(severity, place, message) if separator else Finding(severity, "data set", line)


@dataclass(frozen=True)
class PartCounts:
    """The images of training or of testing."""

    images: int
    unreadable: int
    """How many of them could not be counted, for an error that stands among the findings."""
    smallest: tuple[int, int] | None
    """Width and height of the image with the fewest pixels; None where none could be read."""
    largest: tuple[int, int] | None
    background: float
    """Share of the pixels with id 0."""
    ignored: float
    """Share of the pixels with id 255."""


@dataclass(frozen=True)
class ClassCounts:
    """How often a class occurs."""

    id: int
    name: str
    train_images: int
    train_pixels: int
    test_images: int
    test_pixels: int


@dataclass(frozen=True)
class StepCounts:
    """What a step learns, and its images."""

    step: int
    classes: list[str]
    train_images: int
    test_images: int


@dataclass(frozen=True)
class DataReport:
    """A data set, counted, and what is wrong or odd in it."""

    kind: str
    train: PartCounts
    test: PartCounts
    classes: list[ClassCounts]
    steps: list[StepCounts]
    findings: list[Finding]

    def of(self, severity: Severity) -> list[Finding]:
        """The findings of a severity."""
        return [finding for finding in self.findings if finding.severity == severity]
