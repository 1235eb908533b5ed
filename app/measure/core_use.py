"""Utilisation of the DPU's cores within a window."""

from __future__ import annotations

import time

from tutelage.app.pipeline.pipeline import Pipeline, utilisation


class CoreUse:
    """Utilisation of the DPU's cores between the first and the last look inside a window.

    Parameters
    ----------
    pipeline : the running pipeline
    start, end : the window, monotonic time, s

    Attributes
    ----------
    end : end of the window, monotonic time, s
    """

    def __init__(self, pipeline: Pipeline, start: float, end: float) -> None:
        self._pipeline, self._start, self.end = pipeline, start, end
        self._first: tuple[float, list[float]] | None = None
        self._last: tuple[float, list[float]] | None = None

    def look(self) -> None:
        """Read the counters, if now is inside the window."""
        now = time.monotonic()
        if not self._start <= now <= self.end:
            return
        self._last = now, self._pipeline.core_seconds()
        self._first = self._first or self._last

    def share(self) -> float | None:
        """Return the utilisation of the cores, 0 to 1; None without two looks in the window."""
        if not self._first or not self._last or self._last[0] <= self._first[0]:
            return None
        return utilisation(self._first[1], self._last[1], self._last[0] - self._first[0])
