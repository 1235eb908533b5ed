"""Percentiles of lists, arrays and histograms, by the nearest-rank definition."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

PERCENTS = (50, 90, 99)
"""The percentiles that are reported for latencies."""


def nearest_rank(count: int, percent: float) -> int:
    """Return the rank of a percentile among `count` ordered values; 1 is the least.

    Nearest-rank definition: the least value that `percent` % of the values do not exceed. The
    result is always one of the values, without interpolation (Hyndman and Fan 1996, Sample
    Quantiles in Statistical Packages, definition 1).
    """
    return max(1, math.ceil(count * percent / 100))


def percentile(values: Sequence[float] | np.ndarray, percent: float) -> float | None:
    """Return the least value that `percent` % of the values do not exceed; None without values."""
    if not len(values):
        return None
    rank = nearest_rank(len(values), percent)
    return float(np.partition(values, rank - 1)[rank - 1])
