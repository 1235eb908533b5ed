"""The time of every frame of a step, kept in memory until the step is over."""

from __future__ import annotations

import time
from array import array

import numpy as np

from tutelage.app.pipeline.result import STAGES, Result

COLUMNS = ("frame", "done_s", "ok", *(f"{stage}_ms" for stage in STAGES))
DONE, OK, TOTAL = COLUMNS.index("done_s"), COLUMNS.index("ok"), COLUMNS.index("total_ms")
_NOT_TIMED = float("nan")


class FrameRecorder:
    """Takes results as they come; `rows` gives them as a table."""

    def __init__(self) -> None:
        self._values = array("d")  # grows by an eighth at a time, 80 bytes a frame

    def add(self, result: Result) -> None:
        """Note a result, at the moment it is given out."""
        done, times = time.monotonic(), result.milliseconds
        self._values.extend((result.frame.index, done, result.error is None))
        self._values.extend(times.get(stage, _NOT_TIMED) for stage in STAGES)

    def rows(self) -> np.ndarray:
        """Return float64, frames x COLUMNS: number, monotonic time (s), 1 or 0, ms; NaN: none."""
        return np.array(self._values).reshape(-1, len(COLUMNS))
