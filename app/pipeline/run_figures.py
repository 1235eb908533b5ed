"""The figures of a run: counts, accuracy, latencies per stage, frames per second.

Memory is constant for runs of any length: latencies go into histograms rather than lists.
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

_FIRST_MS = 1e-4  # 0.1 microseconds, the lowest bin
_STEPS_PER_FACTOR_E = 100  # bins grow by 1 %, so a percentile has an error of at most 0.5 %
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
        """Add latencies, ms; at least one."""
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
    """Counts and times of a pipeline's results. The clock starts at construction.

    Attributes
    ----------
    start, last : monotonic time (s) of the construction, and of the newest result
    classified, failed : numbers of frames
    labelled, correct : numbers of frames with a true label, and with that label as result
    """

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()
        self.classified = 0
        self.failed = 0
        self.labelled = 0
        self.correct = 0
        self._latency = {stage: Histogram() for stage in STAGES}
        # Results not yet in the histograms: adding many in one call costs a tenth of one by one.
        self._pending: list[dict[str, float]] = []
        self._lock = threading.Lock()  # since `report` may run while results are added

    def add(self, result: Result) -> None:
        """Add a result. Its time of completion is now."""
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
        """Return all figures; `accuracy` is None if no true label is known."""
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
