"""Reordering of the lanes' results into the order of their frames."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tutelage.app.pipeline.job import FrameJob
from tutelage.app.pipeline.result import Result


class ResultOrder:
    """Passes results on in the order of their jobs' tickets, in the threads that bring them.

    Parameters
    ----------
    pass_on : function that is called with each job and result, one at a time, in order
    """

    def __init__(self, pass_on: Callable[[FrameJob, Result], None]) -> None:
        self._pass_on = pass_on
        self._lock = threading.Lock()
        self._early: dict[int, tuple[FrameJob, Result]] = {}
        self._passing_on = False
        self.given = 0

    def __len__(self) -> int:
        return len(self._early)

    def give(self, job: FrameJob, result: Result) -> None:
        """Add a result, and pass on those that are next, unless another thread is doing so."""
        with self._lock:
            if self._passing_on or job.ticket != self.given:
                self._early[job.ticket] = (job, result)
                return
            self._passing_on = True
            self.given += 1
        item: tuple[FrameJob, Result] | None = (job, result)
        while item is not None:
            job, result = item
            job.milliseconds["total"] = 1e3 * (time.monotonic() - job.began)
            result.milliseconds = job.milliseconds
            self._pass_on(job, result)
            with self._lock:
                item = self._early.pop(self.given, None)
                if item is None:
                    self._passing_on = False
                else:
                    self.given += 1
