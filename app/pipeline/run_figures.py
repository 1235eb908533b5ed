"""The figures of a run: counts, accuracy, latencies per stage, frames per second.

Memory is constant, however long the run: latencies go into histograms, not lists.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tutelage.app.pipeline.result import STAGES, Result
from tutelage.core.results.percentiles import PERCENTS, nearest_rank

_FIRST_MS = 1e-4  # 0.1 microseconds; all below counts as this
_STEPS_PER_FACTOR_E = 100  # bins grow by 1 %: a percentile is off by 0.5 % at most
_BINS = 2100  # up to 1e-4 ms * e**21 = 36 hours
_PENDING = 256


class Histogram:
    """Latencies in ms, in logarithmic bins of 1 %; mean and maximum are exact."""

    def __init__(self) -> None:
        self._bins = np.zeros(_BINS, np.int64)
        self.count = 0
        self.total = 0.0
        self.maximum = 0.0

    def add(self, milliseconds: Sequence[float] | np.ndarray) -> None:
        """Take latencies, ms; at least one."""
        values = np.asarray(milliseconds, np.float64)
        places = np.log(np.maximum(values, _FIRST_MS) / _FIRST_MS) * _STEPS_PER_FACTOR_E
        places = np.minimum(places.astype(np.int64), _BINS - 1)
        self._bins += np.bincount(places, minlength=_BINS)
        self.count += len(values)
        self.total += float(values.sum())
        self.maximum = max(self.maximum, float(values.max()))

    def percentile(self, percent: float) -> float:
        """Return a percentile as `tutelage.core.results.percentiles.percentile` does, ms."""
        if not self.count:
            return 0.0
        rank = nearest_rank(self.count, percent)
        place = int(np.searchsorted(np.cumsum(self._bins), rank))
        middle = _FIRST_MS * math.exp((place + 0.5) / _STEPS_PER_FACTOR_E)
        return min(middle, self.maximum)

    def report(self) -> dict[str, float]:
        """Return p50, p90, p99, mean and max in ms."""
        figures = {f"p{percent}": self.percentile(percent) for percent in PERCENTS}
        figures["mean"] = self.total / self.count if self.count else 0.0
        figures["max"] = self.maximum
        return {name: round(value, 4) for name, value in figures.items()}


class RunFigures:
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
        # Results not yet in the histograms: many at once cost a tenth of one by one.
        self._pending: list[dict[str, float]] = []
        self._lock = threading.Lock()  # for a report while results are added

    def add(self, result: Result) -> None:
        """Take one result into account, at the moment it is given out."""
        self.last = time.monotonic()
        if result.error is not None:
            self.failed += 1
            return
        self.classified += 1
        correct = result.correct
        if correct is not None:
            self.labelled += 1
            self.correct += correct
        with self._lock:
            self._pending.append(result.milliseconds)
            if len(self._pending) == _PENDING:
                self._sort_in()

    def _sort_in(self) -> None:
        for stage, histogram in self._latency.items():
            values = [times[stage] for times in self._pending if stage in times]
            if values:
                histogram.add(values)
        self._pending.clear()

    def report(self) -> dict[str, Any]:
        """Return all figures; `accuracy` is None where no true label was known."""
        with self._lock:
            self._sort_in()
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
