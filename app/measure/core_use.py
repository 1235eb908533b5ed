"""How long the DPU's cores had jobs within a window."""

from __future__ import annotations

import time

from tutelage.app.pipeline.pipeline import Pipeline, utilisation


class CoreUse:
    """How long the DPU's cores had jobs within a window, as near as the looks come to its ends.

    Attributes
    ----------
    end : of the window, monotonic time, s
    """

    def __init__(self, pipeline: Pipeline, start: float, end: float) -> None:
        self._pipeline, self._start, self.end = pipeline, start, end
        self._first: tuple[float, list[float]] | None = None
        self._last: tuple[float, list[float]] | None = None

    def look(self) -> None:
        now = time.monotonic()
        if not self._start <= now <= self.end:
            return
        self._last = now, self._pipeline.core_seconds()
        self._first = self._first or self._last

    def share(self) -> float | None:
        """Return `utilisation`; None: there were no two looks."""
        if not self._first or not self._last or self._last[0] <= self._first[0]:
            return None
        return utilisation(self._first[1], self._last[1], self._last[0] - self._first[0])
