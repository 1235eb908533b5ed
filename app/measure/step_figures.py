"""The figures of one step: speed, latency, watts and energy, each with its interval.

Every figure is that of the measured window: frames count that were given out within it. Watts and
joules are those of the rail that feeds the whole board. Beside the interval of chance stands
`sensor_error`, what is known to be uncertain about the readings themselves, see
`tutelage.board.power.sampler.Power.energy`: it does not get smaller with time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from tutelage.app.measure.recorder import COLUMNS, DONE, OK, TOTAL
from tutelage.app.measure.sections import drift, estimate, section_count, section_edges
from tutelage.app.pipeline.result import STAGES
from tutelage.board.power import Power

PERCENTS = (50, 90, 99)
_IDLE_SECTIONS = 10
_NOISE = 1e-9  # of a power: a difference below is one of floating-point arithmetic


@dataclass(frozen=True)
class IdlePower:
    """What the board takes at rest, W; None where it was not measured.

    Attributes
    ----------
    watts : mean
    ci95 : half the width of its interval
    sensor_error : bound of what the readings are uncertain by
    """

    watts: float | None = None
    ci95: float | None = None
    sensor_error: float | None = None


def idle_power(power: Power, start: float, end: float) -> IdlePower:
    """Return the power of the whole board between two monotonic times (s) of rest."""
    seconds = end - start
    if power.total_rail is None or not seconds > 0:
        return IdlePower()
    edges = section_edges(start, end, _IDLE_SECTIONS)
    watts = [_watts(power, a, b)[0] for a, b in pairwise(edges)]
    whole, error = _watts(power, start, end)
    figure = estimate(whole, watts)
    return IdlePower(whole, figure["ci95"], error)


def step_figures(
    frames: np.ndarray, start: float, end: float, power: Power, idle: IdlePower
) -> dict[str, Any]:
    """Return the figures of a window.

    Parameters
    ----------
    frames : of `FrameRecorder`
    start, end : the window, monotonic time, s
    power : the sampler that ran meanwhile
    idle : the baseline

    Returns
    -------
    frames (classified, failed); sections, fewer for percentiles where they hold too few frames;
    fps; latency_ms (mean, p50, p90, p99 with intervals, max); stages_ms; drift, share by which the
    window's second half was faster, None where that is chance; power
    """
    inside = frames[(frames[:, DONE] >= start) & (frames[:, DONE] < end)]
    good = inside[inside[:, OK] == 1]
    count = section_count(len(good))
    edges = section_edges(start, end, count) if count else []
    parts = _cut(good, edges)
    lengths = [b - a for a, b in pairwise(edges)]
    rates = [len(part) / length for part, length in zip(parts, lengths, strict=True)]
    return {
        "frames": {"classified": len(good), "failed": len(inside) - len(good)},
        "sections": count,
        "fps": estimate(len(good) / (end - start), rates),
        "latency_ms": _latencies(good, start, end),
        "stages_ms": _stages(good),
        "drift": drift(rates),
        "power": _power(
            power,
            idle,
            (start, end),
            len(good),
            _power_at(power, edges, [len(part) for part in parts]),
        ),
    }


def _cut(frames: np.ndarray, edges: Sequence[float]) -> list[np.ndarray]:
    return [frames[(frames[:, DONE] >= a) & (frames[:, DONE] < b)] for a, b in pairwise(edges)]


def percentile(values: np.ndarray, percent: float) -> float | None:
    """Return the value that `percent` % of the values do not exceed (nearest rank)."""
    if not len(values):
        return None
    rank = max(1, math.ceil(len(values) * percent / 100))
    return float(np.partition(values, rank - 1)[rank - 1])


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _latencies(frames: np.ndarray, start: float, end: float) -> dict[str, Any]:
    whole = frames[:, TOTAL]

    def figure(of: Callable[[np.ndarray], float | None], count: int | None) -> dict[str, Any]:
        parts = _cut(frames, section_edges(start, end, count)) if count else []
        return estimate(of(whole), [of(part[:, TOTAL]) for part in parts])

    figures: dict[str, Any] = {"mean": figure(_mean, section_count(len(whole)))}
    for percent in PERCENTS:
        of = partial(percentile, percent=percent)
        figures[f"p{percent}"] = figure(of, section_count(len(whole), percent))
    figures["max"] = float(whole.max()) if len(whole) else None
    return figures


def _stages(frames: np.ndarray) -> dict[str, Any]:
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
    further_ci95: float | None = 0.0  # of what was subtracted, independent of the sections, W

    def above(self, idle: IdlePower) -> _Load:
        """The same without the power at rest."""
        if self.watts is None or self.sensor_error is None or idle.watts is None:
            return _Load(self.seconds, self.frames, None, None, ())
        parts = [(w if w is None else w - idle.watts, t, n) for w, t, n in self.sections]
        error = self.sensor_error + (idle.sensor_error or 0.0)
        rest = self.watts - idle.watts
        if abs(rest) < _NOISE * idle.watts:
            rest = 0.0
        return _Load(self.seconds, self.frames, rest, error, tuple(parts), idle.ci95)

    def figure(self, of: Callable[[float | None, float, int], float | None]) -> dict[str, Any]:
        """A figure of (watts, seconds, frames) with its interval and the readings' error."""
        figure = estimate(of(self.watts, self.seconds, self.frames),
                          [of(*section) for section in self.sections])  # fmt: skip
        if figure["ci95"] is not None:
            further = self._change(of, self.further_ci95)
            figure["ci95"] = None if further is None else math.hypot(figure["ci95"], further)
        figure["sensor_error"] = self._change(of, self.sensor_error)
        return figure

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
    power: Power, idle: IdlePower, window: tuple[float, float], frames: int, sections: Any
) -> dict[str, Any]:
    """Return watts, energies and efficiencies, above idle and not; and every rail's figures."""
    start, end = window
    whole = _Load(end - start, frames, *_watts(power, start, end), sections)
    figures: dict[str, Any] = {}
    for suffix, load in (("", whole), ("_above_idle", whole.above(idle))):
        figures[f"watts{suffix}"] = load.figure(lambda watts, _seconds, _frames: watts)
        figures[f"joules_per_frame{suffix}"] = load.figure(_joules_per_frame)
        figures[f"fps_per_watt{suffix}"] = load.figure(_fps_per_watt)
    report = power.report(start, end, frames)
    kept = ("source", "reason", "total_rail", "doubts", "rails", "samples", "rate_hz", "jitter_ms",
            "missed")  # fmt: skip
    return {**figures, **{name: report[name] for name in kept}, "idle": asdict(idle)}


def _joules_per_frame(watts: float | None, seconds: float, frames: int) -> float | None:
    return None if watts is None or not frames else watts * seconds / frames


def _fps_per_watt(watts: float | None, seconds: float, frames: int) -> float | None:
    """Return frames per second and watt; None where nothing above zero is left to divide by."""
    return None if watts is None or not watts > 0 else frames / seconds / watts
