"""Figures of a comparison in words, as its tables have them."""

from __future__ import annotations

from eircli.reports.comparison import Comparison, Difference, Group, Summary


def memory_text(group: Group) -> str:
    """What its exemplars take, or a dash."""
    if group.memory_bytes is None or (size := group.memory_bytes.mean) is None:
        return "–"
    factor, unit = next((f, u) for f, u in ((1, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB")) if size < 1000 * f or u == "GB")
    return f"{size / factor:.{0 if size / factor >= 10 or factor == 1 else 1}f} {unit}"


def plus_minus(summary: Summary) -> str:
    """Mean ± standard deviation in percent, or a dash."""
    if summary.mean is None:
        return "–"
    return f"{summary.mean:.1f}" + ("" if summary.sd is None else f" ± {summary.sd:.1f}")


def difference_text(difference: Difference | None) -> str:
    """The mean difference with its interval, or a dash."""
    if difference is None:
        return "–"
    if difference.interval is None:
        return f"{difference.mean:+.1f}"
    low, high = difference.interval
    return f"{difference.mean:+.1f} ({low:+.1f} to {high:+.1f})"


def explanation(facts: Comparison) -> str:
    """What the columns mean."""
    return (
        "mean ± standard deviation over the seeds; old: background and the base step's classes; new: those learned later; "
        "average: of all over the steps; forgetting: best earlier IoU less the present one, mean over old classes; "
        f"difference: of all, paired by seed, with its {facts.confidence:.0%} interval (Student's t)"
    )
