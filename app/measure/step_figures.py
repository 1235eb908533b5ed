"""The figures of one step: speed, latency, watts and energy, each with its interval.

All figures are those of the measured window, that is of the frames completed within it; only the
latencies of "server" are those of the frames that arrived within it, since a bound on them would
otherwise be kept by frames that are never finished. Watts and joules are those of the rail that
feeds the whole board. Besides the statistical interval there is `sensor_error`, the known
uncertainty of the readings themselves (see `tutelage.board.power.sampler.Power.energy`), which does
not decrease with time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from tutelage.app.measure.recorder import COLUMNS, DONE, FRAME, OK, TOTAL
from tutelage.app.pipeline.result import STAGES
from tutelage.board.power import Power
from tutelage.core.results.figure import Figure
from tutelage.core.results.intervals import (
    drift,
    section_count,
    section_edges,
    sectioned_figure,
)
from tutelage.core.results.percentiles import PERCENTS, percentile
from tutelage.core.results.run_json import (
    FrameCounts,
    Latencies,
    PowerResults,
    SensorWarning,
    WindowFigures,
)

_IDLE_SECTIONS = 10
_NOISE = 1e-9  # relative to a power; smaller differences are rounding errors


def idle_power(power: Power, start: float, end: float) -> Figure:
    """Return the idle power of the whole board between two monotonic times (s), W."""
    seconds = end - start
    if power.total_rail is None or not seconds > 0:
        return Figure(unit="W")
    edges = section_edges(start, end, _IDLE_SECTIONS)
    watts = [_watts(power, a, b)[0] for a, b in pairwise(edges)]
    whole, error = _watts(power, start, end)
    return replace(sectioned_figure(whole, watts, "W"), sensor_error=error)


def step_figures(
    frames: np.ndarray,
    start: float,
    end: float,
    power: Power,
    idle: Figure,
    arrived: range | None = None,
) -> WindowFigures:
    """Return the figures of a window.

    If sections have too few frames for a percentile, its interval comes from fewer sections than
    that of the mean.

    Parameters
    ----------
    frames : the rows of `FrameRecorder`
    start, end : the window, monotonic time, s
    power : the power sampler that ran meanwhile
    idle : idle power, W
    arrived : indices of the frames that arrived in the window, for the latencies of "server"; one
        that failed or has no row counts as later than all others
    """
    inside = frames[(frames[:, DONE] >= start) & (frames[:, DONE] < end)]
    good = inside[inside[:, OK] == 1]
    count = section_count(len(good))
    edges = section_edges(start, end, count) if count else []
    parts = _cut(good, edges)
    lengths = [b - a for a, b in pairwise(edges)]
    rates = [len(part) / length for part, length in zip(parts, lengths, strict=True)]
    sections = _power_at(power, edges, [len(part) for part in parts])
    counts = FrameCounts(len(good), len(inside) - len(good))
    if arrived is None:
        latencies = _latencies(good[:, TOTAL], lambda n: [
            part[:, TOTAL] for part in _cut(good, section_edges(start, end, n))])  # fmt: skip
    else:
        served = frames[(frames[:, FRAME] >= arrived.start) & (frames[:, FRAME] < arrived.stop)]
        counts = replace(counts, arrived=len(arrived), unanswered=len(arrived) - len(served))
        waits = _waits(served, arrived)
        latencies = _latencies(waits, partial(np.array_split, waits))
    return WindowFigures(
        frames=counts,
        sections=count,
        fps=sectioned_figure(len(good) / (end - start), rates, "fps"),
        latency_ms=latencies,
        stages_ms=_stages(good),
        drift=drift(rates),
        power=_power(power, idle, (start, end), len(good), sections),
    )


def _cut(frames: np.ndarray, edges: Sequence[float]) -> list[np.ndarray]:
    return [frames[(frames[:, DONE] >= a) & (frames[:, DONE] < b)] for a, b in pairwise(edges)]


def _waits(served: np.ndarray, arrived: range) -> np.ndarray:
    """Return the latencies of the frames that arrived, ms, infinite for those without a result."""
    waits = np.full(len(arrived), np.inf)
    good = served[served[:, OK] == 1]
    waits[good[:, FRAME].astype(int) - arrived.start] = good[:, TOTAL]
    return waits


def _percentile(values: np.ndarray, percent: float) -> float | None:
    """Return a percentile; None if it is that of frames without a result."""
    found = percentile(values, percent)
    return found if found is not None and math.isfinite(found) else None


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _latencies(whole: np.ndarray, cut: Callable[[int], Sequence[np.ndarray]]) -> Latencies:
    """Return the figures of latencies, ms; `cut` cuts them into a number of sections.

    Those that are infinite count in the percentiles only.
    """

    def figure(of: Callable[[np.ndarray], float | None], count: int | None) -> Figure:
        parts = cut(count) if count else []
        return sectioned_figure(of(whole), [of(part) for part in parts], "ms")

    p50, p90, p99 = (
        figure(partial(_percentile, percent=percent), section_count(len(whole), percent))
        for percent in PERCENTS
    )
    known = whole[np.isfinite(whole)]
    mean = figure(_mean, section_count(len(whole)))
    slowest = Figure.around(float(known.max()) if len(known) else None, unit="ms")
    return Latencies(p50, p90, p99, mean, slowest)


def _stages(frames: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Return p50 and p99 of each timed stage, ms."""
    found = {}
    for stage in STAGES:
        values = frames[:, COLUMNS.index(f"{stage}_ms")]
        values = values[np.isfinite(values)]
        if len(values):
            found[stage] = {f"p{percent}": percentile(values, percent) for percent in (50, 99)}
    return found


def _watts(power: Power, start: float, end: float) -> tuple[float | None, float | None]:
    """Return the total rail's mean power and the bound of its readings' error, W."""
    rail = power.energy(start, end).get(power.total_rail or "")
    if rail is None or rail.joules is None or rail.error_joules is None:
        return None, None
    return rail.joules / (end - start), rail.error_joules / (end - start)


@dataclass(frozen=True)
class _Load:
    """Mean power in a window and in its sections, W, with the numbers of frames."""

    seconds: float
    frames: int
    watts: float | None
    sensor_error: float | None  # bound of the readings' error, W
    sections: tuple[tuple[float | None, float, int], ...]  # watts, seconds, frames
    further_width: float | None = 0.0  # half interval of the subtracted idle power, W

    def above(self, idle: Figure) -> _Load:
        """Return the load with the idle power subtracted."""
        if self.watts is None or self.sensor_error is None or idle.value is None:
            return _Load(self.seconds, self.frames, None, None, ())
        parts = [(w if w is None else w - idle.value, t, n) for w, t, n in self.sections]
        error = self.sensor_error + (idle.sensor_error or 0.0)
        rest = self.watts - idle.value
        if abs(rest) < _NOISE * idle.value:
            rest = 0.0
        return _Load(self.seconds, self.frames, rest, error, tuple(parts), idle.half_width)

    def figure(self, of: Callable[[float | None, float, int], float | None], unit: str) -> Figure:
        """Return a function of (watts, seconds, frames) as a figure with interval and error."""
        found = sectioned_figure(of(self.watts, self.seconds, self.frames),
                                 [of(*section) for section in self.sections], unit)  # fmt: skip
        width, further = found.half_width, self._change(of, self.further_width)
        if width is not None:
            whole = None if further is None else math.hypot(width, further)
            found = Figure.around(found.value, whole, unit, found.n)
        return replace(found, sensor_error=self._change(of, self.sensor_error))

    def _change(
        self, of: Callable[[float | None, float, int], float | None], watts: float | None
    ) -> float | None:
        """Return the change of a figure if the power is lower by `watts`; None if unbounded."""
        if self.watts is None or watts is None:
            return None
        known, other = (of(w, self.seconds, self.frames) for w in (self.watts, self.watts - watts))
        return None if known is None or other is None else abs(other - known)


def _power_at(power: Power, edges: Sequence[float], counts: Sequence[int]) -> Any:
    return tuple(
        (_watts(power, a, b)[0], b - a, n)
        for (a, b), n in zip(pairwise(edges), counts, strict=True)
    )


def _power(
    power: Power, idle: Figure, window: tuple[float, float], frames: int, sections: Any
) -> PowerResults:
    """Return power, energy and efficiency, total and above idle, and the figures of all rails."""
    start, end = window
    whole = _Load(end - start, frames, *_watts(power, start, end), sections)
    report = power.report(start, end, frames)
    kept = ("source", "reason", "total_rail", "rails", "samples", "rate_hz", "jitter_ms", "missed")
    facts: dict[str, Any] = {name: report[name] for name in kept}
    return PowerResults(*_energies(whole), *_energies(whole.above(idle)), idle=idle,
                        doubts=_warnings(report["doubts"]), **facts)  # fmt: skip


def _energies(load: _Load) -> tuple[Figure, Figure, Figure]:
    return (load.figure(lambda watts, _seconds, _frames: watts, "W"),
            load.figure(_joules_per_frame, "J"), load.figure(_fps_per_watt, "fps/W"))  # fmt: skip


def _warnings(found: Sequence[dict[str, str]] | None) -> list[SensorWarning] | None:
    return [SensorWarning(**each) for each in found] if found else None


def _joules_per_frame(watts: float | None, seconds: float, frames: int) -> float | None:
    return None if watts is None or not frames else watts * seconds / frames


def _fps_per_watt(watts: float | None, seconds: float, frames: int) -> float | None:
    """Return frames per second per watt; None unless the power is above zero."""
    return None if watts is None or not watts > 0 else frames / seconds / watts
