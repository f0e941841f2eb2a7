"""How much a memory may hold."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


class Budget(NamedTuple):
    """The most that a memory may hold."""

    amount: int
    unit: Literal["exemplars", "bytes"]

    def __str__(self) -> str:
        return f"{self.amount:,} {self.unit}"


def parse_budget(budget: object) -> Budget:
    """A count of exemplars, or bytes written with their unit.

    Example:
        >>> str(parse_budget(100)), str(parse_budget("1.5kB"))
        ('100 exemplars', '1,500 bytes')

    Raises:
        ValueError: neither.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(B|kB|MB|GB|KiB|MiB|GiB)", str(budget).strip())
    amount = int(float(match[1]) * UNITS[match[2]]) if match else budget
    if not isinstance(amount, int) or isinstance(amount, bool) or amount < 1:
        raise ValueError(f"{budget!r} is no budget; give a count of exemplars such as 100, or bytes such as 500kB, 2MB, 1.5MiB")
    return Budget(amount, "bytes" if match else "exemplars")
