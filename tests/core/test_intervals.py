"""Figures, percentiles and intervals: laws that hold for all values, and cases by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.core.results.figure import CONFIDENCE, PREDICTED, Figure
from tutelage.core.results.intervals import (
    difference,
    drift,
    median_coverage,
    median_figure,
    median_of_figures,
    ratio,
    section_count,
    sectioned_figure,
)
from tutelage.core.results.percentiles import percentile

FINITE = st.floats(-1e6, 1e6)
POSITIVE = st.floats(1e-3, 1e6)


def _known(*values: float | None) -> list[float]:
    """Return the numbers that are not None."""
    assert None not in values
    return [value for value in values if value is not None]


# -- percentiles ------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([50, 90, 99, 100]))
def test_a_percentile_is_a_value_that_enough_do_not_exceed(
    values: list[float], percent: int
) -> None:
    (found,) = _known(percentile(np.array(values), percent))
    assert found in values and sum(v <= found for v in values) >= len(values) * percent / 100
    assert sum(v < found for v in values) < len(values) * percent / 100
    assert percentile(values, percent) == found


def test_nothing_has_no_percentile() -> None:
    assert percentile([], 50) is None


# -- sections of one run ----------------------------------------------------------------------


@given(st.lists(FINITE, min_size=20, max_size=20), FINITE, st.floats(0.01, 100), FINITE)
def test_an_interval_moves_and_stretches_with_its_figures(
    sections: list[float], whole: float, scale: float, shift: float
) -> None:
    one = sectioned_figure(whole, sections)
    other = sectioned_figure(scale * whole + shift, [scale * value + shift for value in sections])
    (half,) = _known(one.half_width)
    assert other.half_width == pytest.approx(scale * half, rel=1e-3, abs=1e-3)


def _mean(values: np.ndarray) -> float:
    return float(values.mean())


def _p90(values: np.ndarray) -> float:
    return float(np.percentile(values, 90))


def test_intervals_have_their_coverage() -> None:
    """For an AR(1) process (0.8), the coverage of mean and percentile is near 95 %."""
    rng, hits = np.random.default_rng(1), np.zeros(2)
    rounds, length, memory = 300, 4000, 0.8
    noise = rng.normal(size=(rounds, length)) * np.sqrt(1 - memory**2)
    values = np.empty_like(noise)
    values[:, 0] = rng.normal(size=rounds)
    for k in range(1, length):
        values[:, k] = memory * values[:, k - 1] + noise[:, k]
    for row in values:
        parts = np.split(row, 20)
        for k, (of, truth) in enumerate(((_mean, 0.0), (_p90, 1.2816))):
            found = sectioned_figure(of(row), [of(part) for part in parts])
            low, high = _known(found.low, found.high)
            hits[k] += low <= truth <= high
    assert (hits / rounds > 0.89).all() and (hits / rounds < 0.99).all()


def test_values_without_an_interval() -> None:
    assert sectioned_figure(None, [1.0] * 20, "ms") == Figure(unit="ms")
    assert sectioned_figure(1.0, [1.0] * 19 + [None]) == Figure(1.0, n=1)
    assert sectioned_figure(1.0, []).half_width is None
    assert [section_count(n) for n in (0, 49, 50, 100, 200)] == [None, None, 5, 10, 20]


def test_drift_is_seen_and_noise_is_not() -> None:
    rng = np.random.default_rng(2)
    assert drift([100.0] * 10 + [105.0] * 10) == pytest.approx(0.05)
    assert drift([100.0] * 10 + [90.0] * 10) == pytest.approx(-0.1)
    for sections in (5, 10, 20):
        alarms = sum(drift(list(rng.normal(100, 5, sections))) is not None for _ in range(1000))
        assert alarms < 25, sections
    for sections in (10, 20):
        stepped = rng.normal(100, 1, (200, sections))
        stepped[:, sections // 2 :] += 5
        assert sum(drift(list(row)) is not None for row in stepped) > 190, sections
    assert drift([100.0, None]) is None


# -- repetitions ------------------------------------------------------------------------------


@given(st.lists(POSITIVE, min_size=2, max_size=40))
def test_the_interval_encloses_the_median(values: list[float]) -> None:
    figure = median_figure(values)
    value, low, high, coverage = _known(*figure.ends, figure.coverage)
    assert low <= value <= high and {low, high} <= set(values)
    assert (coverage >= CONFIDENCE) == (len(values) >= 6)


@given(st.lists(POSITIVE, min_size=1, max_size=20), st.floats(0.01, 100))
def test_a_change_of_units_changes_nothing_else(values: list[float], factor: float) -> None:
    one, other = median_figure(values), median_figure([factor * value for value in values])
    scaled = one.scaled(factor, "")
    assert other.value == pytest.approx(scaled.value)
    assert other.coverage == one.coverage == scaled.coverage
    if one.low is not None:
        assert (other.low, other.high) == pytest.approx((scaled.low, scaled.high))


@pytest.mark.parametrize("count", range(2, 12))
def test_the_coverage_is_that_of_all_outcomes(count: int) -> None:
    """Each value is below or above the true median with equal probability: count the outcomes."""
    for rank in range(1, count // 2 + 1):
        outcomes = itertools.product((0, 1), repeat=count)
        good = sum(rank <= sum(below) <= count - rank for below in outcomes)
        assert median_coverage(count, rank) == pytest.approx(good / 2**count)


def test_unmeasured_stays_unmeasured() -> None:
    assert median_figure([]) == median_figure([None, math.nan]) == Figure()
    assert median_figure([None, 2.0], "ms") == Figure.around(2.0, unit="ms")
    assert ratio(median_figure([]), Figure.around(1.0)).value is None
    assert ratio(Figure.around(1.0), Figure.around(0.0)).value is None


@given(st.lists(POSITIVE, min_size=6, max_size=9), st.lists(POSITIVE, min_size=6, max_size=9))
def test_ratios(upper: list[float], lower: list[float]) -> None:
    a, b = median_figure(upper), median_figure(lower)
    there, back = ratio(a, b), ratio(b, a)
    value, low, high, coverage = _known(*there.ends, there.coverage)
    other, least, most = _known(*back.ends)
    assert value * other == pytest.approx(1)
    assert low * most == pytest.approx(1) and high * least == pytest.approx(1)
    assert low <= value <= high
    assert coverage <= min(_known(a.coverage, b.coverage))


def test_a_ratio_with_a_prediction_is_one() -> None:
    found = ratio(median_figure([2.0] * 6), Figure.predicted(1.0, 0.5, 2.0, "ms"), "x")
    assert found == Figure(2.0, 1.0, 4.0, None, 1, "x", PREDICTED)


def _read(value: float | None, error: float | None) -> Figure:
    return Figure(value, n=1, unit="W", sensor_error=error)


def test_sensor_errors_pass_through_medians_and_ratios() -> None:
    watts = [_read(10, 0.5), _read(None, None), _read(12, 0.7), _read(11, 0.6)]
    found = median_of_figures(watts, "W")
    assert found == replace(median_figure([10, 12, 11], "W"), sensor_error=0.7)
    assert median_of_figures(watts[:2], "W") == watts[0]
    assert median_of_figures([*watts, _read(9, None)], "W").sensor_error is None
    gain = ratio(_read(20, 1.0), found)  # 5 % and 0.7 of 11
    assert gain.sensor_error == pytest.approx(20 / 11 * (0.05 + 0.7 / 11))
    assert ratio(_read(0, 1.0), found).sensor_error == pytest.approx(1 / 11)
    assert ratio(_read(20, None), found).sensor_error is None
    assert ratio(found, _read(20, None)).sensor_error is None


def test_a_difference_has_the_uncertainty_of_both() -> None:
    busy, idle = Figure(30.0, 28.0, 33.0, 0.97, 6, "W"), Figure(10.0, 6.0, 11.5, 0.94, 5, "W")
    found = difference(busy, idle, "W")
    assert found.ends == pytest.approx((20.0, 17.5, 25.0))  # 2 and 1.5; 3 and 4
    assert (found.coverage, found.n, found.unit) == (0.94, 5, "W")
    assert found.sensor_error is None
    errors = replace(busy, sensor_error=1.5), replace(idle, sensor_error=0.5)
    assert difference(*errors).sensor_error == 2
    assert difference(busy, Figure.around(10.0)).ends == (20.0, None, None)
    assert difference(busy, Figure()).value is None and difference(Figure(), idle).value is None


@given(st.none() | POSITIVE, st.none() | POSITIVE)
def test_ratios_of_anything(a: float | None, b: float | None) -> None:
    found = ratio(Figure.around(a), Figure.around(b)).value
    assert (found is None) == (a is None or b is None)
