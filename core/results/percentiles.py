"""Percentiles: the one definition, of lists, arrays and histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

PERCENTS = (50, 90, 99)
"""The percentiles that are reported of latencies."""


def nearest_rank(count: int, percent: float) -> int:
    """Return which of `count` ordered values, 1 the least, is the percentile.

    The nearest-rank definition: the least value that `percent` % of the values do not exceed. It
    is always one of the values; nothing is interpolated (Hyndman and Fan 1996, Sample Quantiles in
    Statistical Packages, definition 1).
    """
    return max(1, math.ceil(count * percent / 100))


def percentile(values: Sequence[float] | np.ndarray, percent: float) -> float | None:
    """Return the least value that `percent` % of the values do not exceed; None without values."""
    if not len(values):
        return None
    rank = nearest_rank(len(values), percent)
    return float(np.partition(values, rank - 1)[rank - 1])
