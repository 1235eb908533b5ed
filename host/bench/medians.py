"""Figures of several repetitions: the median, with an interval that assumes no distribution."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

COVERAGE = 0.95

Figure = dict[str, Any]
"""value, low, high; coverage of the interval, None where unknown; n, how many values it is from."""

NOT_MEASURED: Figure = {"value": None, "low": None, "high": None, "coverage": None, "n": 0}


def median_figure(values: Sequence[float | None]) -> Figure:
    """The median of repetitions and its interval between two of the ordered values.

    The k-th smallest and the k-th largest of n independent values enclose the true median with
    probability 1 - 2 P(B <= k - 1), where B is binomial with n and 1/2 (David and Nagaraja 2003,
    Order Statistics, section 7.1). Taken is the largest k for which that is 95 % or more; with
    fewer than six values there is none, and the least and the greatest enclose it with the coverage
    that is told.
    """
    known = sorted(value for value in values if value is not None and math.isfinite(value))
    if not known:
        return dict(NOT_MEASURED)
    count = len(known)
    if count == 1:
        return {"value": known[0], "low": None, "high": None, "coverage": None, "n": 1}
    rank = next(
        (k for k in range(count // 2, 0, -1) if coverage(count, k) >= COVERAGE), 1
    )  # fmt: skip
    return {
        "value": statistics.median(known), "low": known[rank - 1], "high": known[count - rank],
        "coverage": coverage(count, rank), "n": count,
    }  # fmt: skip


def coverage(count: int, rank: int) -> float:
    """With which probability the `rank`-th smallest and largest of `count` enclose the median."""
    below = sum(math.comb(count, i) for i in range(rank)) / 2**count
    return 1 - 2 * below


def range_figure(value: float, low: float, high: float) -> Figure:
    """A prediction with the range of its known errors, of which nobody knows the coverage."""
    return {"value": value, "low": low, "high": high, "coverage": None, "n": 1}


def known_figure(value: float | None, half_width: float | None = None, n: int = 1) -> Figure:
    """A figure with an interval of 95 % that somebody else has worked out, or none."""
    if value is None:
        return dict(NOT_MEASURED)
    if half_width is None:
        return {"value": value, "low": None, "high": None, "coverage": None, "n": n}
    return {"value": value, "low": value - half_width, "high": value + half_width,
            "coverage": COVERAGE, "n": n}  # fmt: skip


def ratio(upper: Figure, lower: Figure) -> Figure:
    """upper / lower; its interval encloses every ratio of values within the two intervals.

    It is wider than 95 % asks for, since both are at their ends at once.
    """
    if upper["value"] is None or not lower["value"]:
        return dict(NOT_MEASURED)
    found = known_figure(upper["value"] / lower["value"], n=min(upper["n"], lower["n"]))
    ends = [figure[side] for figure in (upper, lower) for side in ("low", "high")]
    if None not in ends and ends[2] > 0:
        found |= {"low": ends[0] / ends[3], "high": ends[1] / ends[2]}
        known = [figure["coverage"] for figure in (upper, lower)]
        found["coverage"] = None if None in known else max(0.0, sum(known) - 1)  # Bonferroni
    return found
