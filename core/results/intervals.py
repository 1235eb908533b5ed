"""Methods that compute the intervals of figures.

Two kinds of measurement need two methods. Repetitions, each with its own figure, are
independent of each other: the interval of their median comes from their order and assumes no
distribution (`median_figure`). Frames of one long run are not independent: each is timed after
another, on a machine that warms up. Therefore the run is cut into sections that are much longer
than the effect of one frame on the next, and the scatter of the sections gives the interval
(`sectioned_figure`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tutelage.core.results.figure import CONFIDENCE, MEASURED, Figure

# -- repetitions: the interval of a median between two ordered values --------------------------


def median_figure(values: Sequence[float | None], unit: str = "") -> Figure:
    """Return the median of repetitions, with an interval between two of the ordered values.

    The k-th smallest and the k-th largest of n independent values contain the true median with
    probability 1 - 2 P(B <= k - 1), where B is binomial with n and 1/2 (David and Nagaraja 2003,
    Order Statistics, section 7.1). The largest k with at least 95 % is used. With fewer than six
    values there is none: the interval then is the whole range, and the figure gives its coverage.
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


def median_of_figures(figures: Sequence[Figure], unit: str = "") -> Figure:
    """Return the median of figures that were measured repeatedly, or the figure if it is only one.

    Its sensor error is the largest of theirs, since the error of a sensor is the same each time and
    does not cancel; None if one of them is unknown.
    """
    known = [figure for figure in figures if figure.value is not None]
    if len(known) == 1:
        return known[0]
    errors = [figure.sensor_error for figure in known if figure.sensor_error is not None]
    error = max(errors) if errors and len(errors) == len(known) else None
    return replace(median_figure([each.value for each in known], unit), sensor_error=error)


def median_coverage(count: int, rank: int) -> float:
    """Return the probability that the `rank`-th smallest and largest enclose the median."""
    below = sum(math.comb(count, i) for i in range(rank)) / 2**count
    return 1 - 2 * below


def ratio(upper: Figure, lower: Figure, unit: str = "") -> Figure:
    """Return upper / lower; its interval contains all ratios of values in the two intervals.

    It is wider than 95 % requires, since it assumes that both values are at their ends. Its
    coverage is the bound given by Bonferroni's inequality. The relative sensor errors are added;
    the sum is None if one of them is unknown.
    """
    if upper.value is None or not lower.value:
        return Figure(unit=unit)
    value, size = upper.value / lower.value, abs(lower.value)
    found = _of_two(upper, lower, value, unit, (1 / size, abs(value) / size))
    if upper.low is None or upper.high is None or lower.low is None or lower.high is None:
        return found
    if not lower.low > 0:
        return found
    covered = None
    if upper.coverage is not None and lower.coverage is not None:
        covered = max(0.0, upper.coverage + lower.coverage - 1)
    return replace(found, low=upper.low / lower.high, high=upper.high / lower.low, coverage=covered)


def difference(upper: Figure, lower: Figure, unit: str = "") -> Figure:
    """Return upper - lower, of independent figures; its interval adds their widths in quadrature.

    Its coverage is the smaller of theirs, which is exact for normally distributed figures of equal
    coverage. The sensor errors are added; the sum is None if one of them is unknown.
    """
    if upper.value is None or lower.value is None:
        return Figure(unit=unit)
    value = upper.value - lower.value
    found = _of_two(upper, lower, value, unit, (1.0, 1.0))
    if upper.low is None or upper.high is None or lower.low is None or lower.high is None:
        return found
    covered = None
    if upper.coverage is not None and lower.coverage is not None:
        covered = min(upper.coverage, lower.coverage)
    below = math.hypot(upper.value - upper.low, lower.high - lower.value)
    above = math.hypot(upper.high - upper.value, lower.value - lower.low)
    return replace(found, low=value - below, high=value + above, coverage=covered)


def _of_two(
    upper: Figure, lower: Figure, value: float, unit: str, slopes: tuple[float, float]
) -> Figure:
    """Return a value computed from two figures, without its interval.

    Parameters
    ----------
    slopes : magnitudes of the value's derivatives by the two figures, for the sensor error
    """
    kind = next((each.kind for each in (upper, lower) if each.kind != MEASURED), upper.kind)
    error = None
    if upper.sensor_error is not None and lower.sensor_error is not None:
        error = slopes[0] * upper.sensor_error + slopes[1] * lower.sensor_error
    return Figure(value, n=min(upper.n, lower.n), unit=unit, kind=kind, sensor_error=error)


# -- one long run: sections of a window ---------------------------------------------------------

# Sections -> Student's t for a 95 % interval with one degree of freedom less.
_T95 = {20: 2.093, 10: 2.262, 5: 2.776}
_LEAST_FRAMES = 10  # per section; fewer give no useful estimate

# Drift: the halves of a window differ by more than this fraction, and by more than chance explains.
_DRIFT_SHARE = 0.02
# Sections -> Student's t for a 99 % interval of the difference of two halves' means.
_T99_HALVES = {20: 2.878, 10: 3.355, 5: 9.925}


def section_count(frames: int, percent: float = 50) -> int | None:
    """Return the number of sections for a window of `frames` frames; None if there are too few.

    `percent` is the percentile that needs an interval. A section needs a frame beyond it: of ten
    frames the 99th percentile is the slowest one, far below the percentile of the whole window.
    """
    least = max(_LEAST_FRAMES, math.ceil(100 / (100 - percent)))
    return next((count for count in _T95 if frames >= count * least), None)


def section_edges(start: float, end: float, count: int) -> list[float]:
    """Return the count + 1 boundaries of the sections."""
    return [start + (end - start) * k / count for k in range(count + 1)]


def sectioned_figure(
    whole: float | None, sections: Sequence[float | None], unit: str = ""
) -> Figure:
    """Return the figure of a window with a 95 % confidence interval from its sections.

    The figure is computed for the whole window and for each section; the scatter of the sections
    gives the interval. This works for means, ratios and percentiles alike, as long as sections are
    much longer than the effect of one frame on the next ("sectioning": Asmussen and Glynn 2007,
    Stochastic Simulation, ch. III.5).

    Parameters
    ----------
    whole : the figure of the whole window, None if it was not measured
    sections : the figure of each section; with a None among them there is no interval
    """
    known = [value for value in sections if value is not None and math.isfinite(value)]
    if whole is None or len(known) not in _T95 or len(known) != len(sections):
        return Figure.around(whole, unit=unit)
    count = len(known)
    square = sum((value - whole) ** 2 for value in known) / (count * (count - 1))
    return Figure.around(whole, _T95[count] * math.sqrt(square), unit, count)


def drift(sections: Sequence[float | None]) -> float | None:
    """Return the relative rise from the first to the second half; None if not significant."""
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
