"""Power and energy within a window of time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.board.power.record import Span
from tutelage.board.power.sources.source import Rail

# Share of a window without readings above which its energy counts as not measured.
_MAX_DARK_SHARE = 0.05


@dataclass(frozen=True)
class RailFigures:
    """Figures of one rail in a window of time; None if not measured.

    Attributes
    ----------
    mean_w, max_w : mean power and highest reading, W
    joules : energy, J
    error_joules : bound of the energy's known errors, J, see `Power.energy`
    flagged : number of missing or implausible readings of power or current
    rate_hz : readings per second
    """

    mean_w: float | None
    max_w: float | None
    joules: float | None
    error_joules: float | None
    flagged: int
    rate_hz: float | None = None


@dataclass(frozen=True)
class Idle:
    """An idle rail: mean power and standard deviation of the readings, W."""

    mean_w: float
    spread_w: float


@dataclass(frozen=True)
class PowerWindow:
    """The records of a window: of the sampling times and of each rail; None without data."""

    seconds: float
    sampling: Span | None
    rails: list[Span | None]

    def schedule(self) -> dict[str, Any]:
        """Return samples, rate_hz, jitter_ms and missed; None without any sample."""
        span = self.sampling
        grown, missed = span.sums[:2] if span else (0.0, 0.0)
        samples = len(span.values) if span and span.complete else round(grown)
        if span is None or not samples:
            return {"samples": None, "rate_hz": None, "jitter_ms": None, "missed": None}
        late = span.values if len(span.values) else np.array([span.highest])
        p50, p99 = np.percentile(late, (50, 99)) * 1e3
        return {
            "samples": samples,
            "rate_hz": _per_second(grown, span),
            "jitter_ms": {"p50": float(p50), "p99": float(p99), "max": span.highest * 1e3},
            "missed": round(missed),
        }


def figures_of(rail: Rail, span: Span | None, seconds: float) -> RailFigures:
    """Return a rail's figures in a window of `seconds`; `Power.energy` explains the error."""
    if span is None:
        return RailFigures(None, None, None, None, 0)
    joules, dark, flagged, _, readings = span.sums
    dark += seconds - (span.last - span.first)
    flags, rate = round(flagged), _per_second(readings, span)
    known = seconds - dark
    max_w = span.highest if math.isfinite(span.highest) else None
    if not known > 1e-9:  # no interval between two good readings
        return RailFigures(None, max_w, None, None, flags, rate)
    mean = joules / known
    if dark > _MAX_DARK_SHARE * seconds:
        return RailFigures(mean, max_w, None, None, flags, rate)
    filled = mean * dark
    error = (
        rail.step_watts * known
        + rail.relative_error * joules
        + 2 * rail.lag_seconds * mean
        + span.whole_steps[3]  # possible changes between two readings of rails read in turn
        + filled
    )
    return RailFigures(mean, max_w, joules + filled, error, flags, rate)


def _per_second(count: float, span: Span) -> float:
    return count / (span.last - span.first) if span.last > span.first else 0.0


def spread_of(span: Span | None) -> float:
    """Return the standard deviation of the finite readings; 0 without any."""
    known = span.values[np.isfinite(span.values)] if span else ()
    return float(np.std(known)) if len(known) else 0.0
