"""The intervals of figures: the one place that has their methods.

Two kinds of measurement need two methods. Repetitions, each with a figure of its own, are
independent of each other: the interval of their median comes from their order and assumes no
distribution (`median_figure`). Frames of one long run are not: each is timed behind the one
before, on a machine that warms up. There the run is cut into sections that are much longer than
what one frame does to the next, and the scatter of the sections gives the interval
(`sectioned_figure`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tutelage.core.results.figure import CONFIDENCE, MEASURED, Figure

# -- repetitions: the interval of a median between two ordered values --------------------------


def median_figure(values: Sequence[float | None], unit: str = "") -> Figure:
    """Return the median of repetitions and its interval between two of the ordered values.

    The k-th smallest and the k-th largest of n independent values enclose the true median with
    probability 1 - 2 P(B <= k - 1), where B is binomial with n and 1/2 (David and Nagaraja 2003,
    Order Statistics, section 7.1). The largest k is taken for which that is 95 % or more; with
    fewer than six values there is none, and the least and the greatest enclose it with the coverage
    that the figure has.
    """
    known = sorted(value for value in values if value is not None and math.isfinite(value))
    if len(known) < 2:
        return Figure.around(known[0] if known else None, unit=unit)
    count = len(known)
    ranks = range(count // 2, 0, -1)
    rank = next((k for k in ranks if median_coverage(count, k) >= CONFIDENCE), 1)
    middle = (known[(count - 1) // 2] + known[count // 2]) / 2
    return Figure(middle, known[rank - 1], known[count - rank], median_coverage(count, rank),
                  count, unit)  # fmt: skip


def median_coverage(count: int, rank: int) -> float:
    """Return with which probability the `rank`-th smallest and largest enclose the median."""
    below = sum(math.comb(count, i) for i in range(rank)) / 2**count
    return 1 - 2 * below


def ratio(upper: Figure, lower: Figure, unit: str = "") -> Figure:
    """Return upper / lower; its interval encloses every ratio of values within the two intervals.

    It is wider than 95 % asks for, since both are at their ends at once. Its coverage is what
    remains by Bonferroni's inequality.
    """
    if upper.value is None or not lower.value:
        return Figure(unit=unit)
    kind = next((each.kind for each in (upper, lower) if each.kind != MEASURED), upper.kind)
    found = Figure(upper.value / lower.value, n=min(upper.n, lower.n), unit=unit, kind=kind)
    if upper.low is None or upper.high is None or lower.low is None or lower.high is None:
        return found
    if not lower.low > 0:
        return found
    covered = None
    if upper.coverage is not None and lower.coverage is not None:
        covered = max(0.0, upper.coverage + lower.coverage - 1)
    return replace(found, low=upper.low / lower.high, high=upper.high / lower.low, coverage=covered)


# -- one long run: sections of a window ---------------------------------------------------------

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
    frames the 99th percentile is the slowest one, far below that of the whole.
    """
    least = max(_LEAST_FRAMES, math.ceil(100 / (100 - percent)))
    return next((count for count in _T95 if frames >= count * least), None)


def section_edges(start: float, end: float, count: int) -> list[float]:
    """Return the count + 1 borders of the sections."""
    return [start + (end - start) * k / count for k in range(count + 1)]


def sectioned_figure(
    whole: float | None, sections: Sequence[float | None], unit: str = ""
) -> Figure:
    """Return a figure of a window with its 95 % confidence interval from sections of it.

    The figure is computed from the whole window, and from each section; their scatter gives the
    interval. That works for means, ratios and percentiles alike, as long as sections are much
    longer than what one frame does to the next ("sectioning": Asmussen and Glynn 2007, Stochastic
    Simulation, ch. III.5).

    Parameters
    ----------
    whole : the figure of the whole window, None where it was not measured
    sections : the figure of each section; one that is None leaves the figure without interval
    """
    known = [value for value in sections if value is not None and math.isfinite(value)]
    if whole is None or len(known) not in _T95 or len(known) != len(sections):
        return Figure.around(whole, unit=unit)
    count = len(known)
    square = sum((value - whole) ** 2 for value in known) / (count * (count - 1))
    return Figure.around(whole, _T95[count] * math.sqrt(square), unit, count)


def drift(sections: Sequence[float | None]) -> float | None:
    """Return by which share the second half is above the first; None where that is chance."""
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
