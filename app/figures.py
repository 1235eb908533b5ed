"""The figures of a run: counts, accuracy, latencies per stage, frames per second.

Memory is constant, however long the run: latencies go into histograms, not lists.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from app.result import STAGES, Result

_FIRST_MS = 1e-4  # 0.1 microseconds; all below counts as this
_STEPS_PER_FACTOR_E = 100  # bins grow by 1 %: a percentile is off by 0.5 % at most
_BINS = 2100  # up to 1e-4 ms * e**21 = 36 hours


class Histogram:
    """Latencies in ms, in logarithmic bins of 1 %; mean and maximum are exact."""

    def __init__(self) -> None:
        self._bins = [0] * _BINS
        self.count = 0
        self.total = 0.0
        self.maximum = 0.0

    def add(self, milliseconds: float) -> None:
        place = math.log(max(milliseconds, _FIRST_MS) / _FIRST_MS) * _STEPS_PER_FACTOR_E
        self._bins[min(int(place), _BINS - 1)] += 1
        self.count += 1
        self.total += milliseconds
        self.maximum = max(self.maximum, milliseconds)

    def percentile(self, percent: float) -> float:
        """Return the value that `percent` % of the latencies do not exceed (nearest rank), ms."""
        rank = max(1, math.ceil(self.count * percent / 100))
        seen = 0
        for place, number in enumerate(self._bins):
            seen += number
            if seen >= rank:
                middle = _FIRST_MS * math.exp((place + 0.5) / _STEPS_PER_FACTOR_E)
                return min(middle, self.maximum)
        return 0.0

    def report(self) -> dict[str, float]:
        """Return p50, p90, p99, mean and max in ms."""
        figures = {f"p{percent}": self.percentile(percent) for percent in (50, 90, 99)}
        figures["mean"] = self.total / self.count if self.count else 0.0
        figures["max"] = self.maximum
        return {name: round(value, 4) for name, value in figures.items()}


class Figures:
    """Counts and times what comes out of a pipeline. The clock starts when this is made.

    Attributes
    ----------
    start, last : monotonic time (s) when this was made, and of the newest result
    """

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()
        self.classified = 0
        self.failed = 0
        self.labelled = 0
        self.correct = 0
        self._latency = {stage: Histogram() for stage in STAGES}

    def add(self, result: Result) -> None:
        """Take one result into account, at the moment it is given out."""
        self.last = time.monotonic()
        if result.error is not None:
            self.failed += 1
            return
        self.classified += 1
        if result.correct is not None:
            self.labelled += 1
            self.correct += result.correct
        for stage, milliseconds in result.milliseconds.items():
            self._latency[stage].add(milliseconds)

    def report(self) -> dict[str, Any]:
        """Return all figures; `accuracy` is None where no true label was known."""
        seconds = self.last - self.start
        return {
            "frames": {
                "in": self.classified + self.failed,
                "classified": self.classified,
                "failed": self.failed,
            },
            "accuracy": self._accuracy(),
            "seconds": round(seconds, 4),
            "fps": round(self.classified / seconds, 2) if seconds > 0 else 0.0,
            "latency_ms": {
                stage: histogram.report()
                for stage, histogram in self._latency.items()
                if histogram.count
            },
        }

    def _accuracy(self) -> dict[str, float] | None:
        if not self.labelled:
            return None
        return {
            "top1": round(self.correct / self.labelled, 6),
            "correct": self.correct,
            "labelled": self.labelled,
        }
