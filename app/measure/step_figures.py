"""The figures of one step: speed, latency, watts and energy, each with its interval.

Every figure is that of the measured window: frames count that were given out within it. Watts and
joules are those of the rail that feeds the whole board. Beside the interval of chance stands
`sensor_error`, what is known to be uncertain about the readings themselves, see
`tutelage.board.power.sampler.Power.energy`: it does not get smaller with time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from tutelage.app.measure.recorder import COLUMNS, DONE, OK, TOTAL
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
_NOISE = 1e-9  # of a power: a difference below is one of floating-point arithmetic


def idle_power(power: Power, start: float, end: float) -> Figure:
    """Return the power of the whole board between two monotonic times (s) of rest, W."""
    seconds = end - start
    if power.total_rail is None or not seconds > 0:
        return Figure(unit="W")
    edges = section_edges(start, end, _IDLE_SECTIONS)
    watts = [_watts(power, a, b)[0] for a, b in pairwise(edges)]
    whole, error = _watts(power, start, end)
    return replace(sectioned_figure(whole, watts, "W"), sensor_error=error)


def step_figures(
    frames: np.ndarray, start: float, end: float, power: Power, idle: Figure
) -> WindowFigures:
    """Return the figures of a window.

    Percentiles have intervals from fewer sections than means where those have too few frames.

    Parameters
    ----------
    frames : of `FrameRecorder`
    start, end : the window, monotonic time, s
    power : the sampler that ran meanwhile
    idle : the baseline, W
    """
    inside = frames[(frames[:, DONE] >= start) & (frames[:, DONE] < end)]
    good = inside[inside[:, OK] == 1]
    count = section_count(len(good))
    edges = section_edges(start, end, count) if count else []
    parts = _cut(good, edges)
    lengths = [b - a for a, b in pairwise(edges)]
    rates = [len(part) / length for part, length in zip(parts, lengths, strict=True)]
    sections = _power_at(power, edges, [len(part) for part in parts])
    return WindowFigures(
        frames=FrameCounts(len(good), len(inside) - len(good)),
        sections=count,
        fps=sectioned_figure(len(good) / (end - start), rates, "fps"),
        latency_ms=_latencies(good, start, end),
        stages_ms=_stages(good),
        drift=drift(rates),
        power=_power(power, idle, (start, end), len(good), sections),
    )


def _cut(frames: np.ndarray, edges: Sequence[float]) -> list[np.ndarray]:
    return [frames[(frames[:, DONE] >= a) & (frames[:, DONE] < b)] for a, b in pairwise(edges)]


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _latencies(frames: np.ndarray, start: float, end: float) -> Latencies:
    whole = frames[:, TOTAL]

    def figure(of: Callable[[np.ndarray], float | None], count: int | None) -> Figure:
        parts = _cut(frames, section_edges(start, end, count)) if count else []
        return sectioned_figure(of(whole), [of(part[:, TOTAL]) for part in parts], "ms")

    p50, p90, p99 = (
        figure(partial(percentile, percent=percent), section_count(len(whole), percent))
        for percent in PERCENTS
    )
    mean = figure(_mean, section_count(len(whole)))
    slowest = Figure.around(float(whole.max()) if len(whole) else None, unit="ms")
    return Latencies(p50, p90, p99, mean, slowest)


def _stages(frames: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Return p50 and p99 of every stage that was timed, ms."""
    found = {}
    for stage in STAGES:
        values = frames[:, COLUMNS.index(f"{stage}_ms")]
        values = values[np.isfinite(values)]
        if len(values):
            found[stage] = {f"p{percent}": percentile(values, percent) for percent in (50, 99)}
    return found


def _watts(power: Power, start: float, end: float) -> tuple[float | None, float | None]:
    """Return the total rail's mean power and the bound of the readings' own error, W."""
    rail = power.energy(start, end).get(power.total_rail or "")
    if rail is None or rail.joules is None or rail.error_joules is None:
        return None, None
    return rail.joules / (end - start), rail.error_joules / (end - start)


@dataclass(frozen=True)
class _Load:
    """Mean power in a window and in its sections, W, with the frames that it was spent on."""

    seconds: float
    frames: int
    watts: float | None
    sensor_error: float | None  # bound of what the readings are uncertain by, W
    sections: tuple[tuple[float | None, float, int], ...]  # watts, seconds, frames
    further_width: float | None = 0.0  # half interval of what was subtracted, independent, W

    def above(self, idle: Figure) -> _Load:
        """Return the same without the power at rest."""
        if self.watts is None or self.sensor_error is None or idle.value is None:
            return _Load(self.seconds, self.frames, None, None, ())
        parts = [(w if w is None else w - idle.value, t, n) for w, t, n in self.sections]
        error = self.sensor_error + (idle.sensor_error or 0.0)
        rest = self.watts - idle.value
        if abs(rest) < _NOISE * idle.value:
            rest = 0.0
        return _Load(self.seconds, self.frames, rest, error, tuple(parts), idle.half_width)

    def figure(self, of: Callable[[float | None, float, int], float | None], unit: str) -> Figure:
        """Return a figure of (watts, seconds, frames), its interval and the readings' error."""
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
        """By how much a figure changes where power is lower by so many watts; None: no bound."""
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
    """Return watts, energies and efficiencies, above idle and not; and every rail's figures."""
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
    """Return frames per second and watt; None where nothing above zero is left to divide by."""
    return None if watts is None or not watts > 0 else frames / seconds / watts
