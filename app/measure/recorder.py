"""The times of every frame of a step, in memory."""

from __future__ import annotations

import time
from array import array

import numpy as np

from tutelage.app.pipeline.result import STAGES, Result

COLUMNS = ("frame", "done_s", "ok", *(f"{stage}_ms" for stage in STAGES))
FRAME, DONE, OK, TOTAL = map(COLUMNS.index, ("frame", "done_s", "ok", "total_ms"))
_NOT_TIMED = float("nan")


class FrameRecorder:
    """Recorder of results; `rows` returns them as a table."""

    def __init__(self) -> None:
        self._values = array("d")  # 80 bytes per frame; grows by an eighth at a time

    def add(self, result: Result) -> None:
        """Record a result, with the current time as that of its completion."""
        done, times = time.monotonic(), result.milliseconds
        self._values.extend((result.frame.index, done, result.error is None))
        self._values.extend(times.get(stage, _NOT_TIMED) for stage in STAGES)

    def rows(self) -> np.ndarray:
        """Return the frames as float64 (frames, COLUMNS).

        The columns are the frame's index, the monotonic time of its completion in s, 1 if it was
        classified or else 0, and the stages in ms, NaN if a stage was not timed.
        """
        return np.array(self._values).reshape(-1, len(COLUMNS))
