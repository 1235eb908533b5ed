"""Confidence intervals of figures from one long run, whose frames are not independent.

The window is cut into sections of equal length. A figure is computed from the whole window, and
from each section; how far the sections scatter tells how far the whole can be trusted. That works
for means, ratios and percentiles alike, as long as sections are much longer than what one frame
does to the next ("sectioning": Asmussen and Glynn 2007, Stochastic Simulation, ch. III.5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

# Sections -> Student's t for a 95 % interval with one degree of freedom less.
_T95 = {20: 2.093, 10: 2.262, 5: 2.776}
_LEAST_FRAMES = 10  # per section; with fewer, a section tells next to nothing

# Halves of the window differ by more than this share, and by more than chance explains: drift.
_DRIFT_SHARE = 0.02
# Sections -> Student's t for a 99 % interval of the difference of two halves' means.
_T99_HALVES = {20: 2.878, 10: 3.355, 5: 9.925}


def section_count(frames: int, percent: float = 50) -> int | None:
    """Return into how many sections a window with so many frames is cut; None: too few frames.

    `percent`: for the interval of this percentile. A section needs a frame beyond it: of ten
    frames the 99th percentile is the slowest one, which lies far below that of the whole.
    """
    least = max(_LEAST_FRAMES, math.ceil(100 / (100 - percent)))
    return next((count for count in _T95 if frames >= count * least), None)


def section_edges(start: float, end: float, count: int) -> list[float]:
    """Return the count + 1 borders of the sections."""
    return [start + (end - start) * k / count for k in range(count + 1)]


def estimate(whole: float | None, sections: Sequence[float | None]) -> dict[str, Any]:
    """Return a figure with its 95 % confidence interval.

    Parameters
    ----------
    whole : the figure of the whole window, None where it was not measured
    sections : the figure of each section; one that is None leaves the figure without interval

    Returns
    -------
    value; ci95: half the width of the interval, None where there is none
    """
    if whole is None:
        return {"value": None, "ci95": None}
    known = [value for value in sections if value is not None and math.isfinite(value)]
    if len(known) not in _T95 or len(known) != len(sections):
        return {"value": whole, "ci95": None}
    count = len(known)
    square = sum((value - whole) ** 2 for value in known) / (count * (count - 1))
    return {"value": whole, "ci95": _T95[count] * math.sqrt(square)}


def drift(sections: Sequence[float | None]) -> float | None:
    """Return by which share the second half lies above the first; None where that is chance."""
    known = [value for value in sections if value is not None]
    if len(known) not in _T95:
        return None
    half = len(known) // 2
    first, second = known[:half], known[-half:]
    means = sum(first) / half, sum(second) / half
    error = math.sqrt((_variance(first) + _variance(second)) / half)
    change = means[1] - means[0]
    if not means[0] or abs(change) <= _T99_HALVES[len(known)] * error:
        return None
    share = change / abs(means[0])
    return share if abs(share) > _DRIFT_SHARE else None


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
