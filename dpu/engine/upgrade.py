"""When a stage changes from float32 to int8: once that pays, and has been shown to give the same.

Making the int8 form and checking it takes some ten milliseconds for each layer, which a few images
do not earn back. So a stage computes in float32 until that has taken as long.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import numpy as np

from tutelage.core.errors import DpuError
from tutelage.core.fixed_point import Array
from tutelage.dpu.engine.runtimes import PIECE, Runtime

INT8_VARIABLE = "TUTELAGE_INT8"
"""Environment variable: "0" keeps to float32, "1" makes the int8 form before the first run."""

LAYER_SECONDS = 0.02
"""What an op's part in making the int8 form is reckoned as; measured 0.02 to 0.03 s."""

LEAST_IMAGES = 512
"""Images before the form is made: its check computes four with the reference, some 66 times as
slow as the float32 graph."""


def wanted() -> str:
    """What the environment variable says: "0", "1" or "".

    Raises
    ------
    DpuError
        It says something else.
    """
    value = os.environ.get(INT8_VARIABLE, "")
    if value not in ("", "0", "1"):
        raise DpuError(f"{INT8_VARIABLE}={value!r} is neither 0 nor 1")
    return value


class UpgradedRuntime:
    """Runs a stage in float32, and from some time on in int8.

    Parameters
    ----------
    exact : the float32 form
    upgrade : makes the int8 form, and arrays to compare the two with; None where there is none
    ops : of the stage
    at_once : before the first run
    """

    def __init__(
        self, exact: Runtime, upgrade: Callable[[], tuple[Runtime, list[Array]] | None],
        ops: int, at_once: bool = False,
    ) -> None:  # fmt: skip
        self._exact, self._upgrade = exact, upgrade
        self._images, self._seconds = (0, 0.0) if at_once else (LEAST_IMAGES, ops * LAYER_SECONDS)
        self._lock = threading.Lock()
        self._int8: Runtime | None = None
        self._trial: list[Array] = []
        self._proven: set[bool] = set()
        self.state = "float32"

    def run(self, arrays: list[Array]) -> list[Array]:
        """The outputs for `arrays`."""
        batch = len(arrays[0])
        ready = self._form(batch)
        if ready is None and self._images <= 0 and self._seconds <= 0 and self.state != "refused":
            self._prepare(batch)
            ready = self._form(batch)
        if ready is not None:
            return ready.run(arrays)
        began = time.perf_counter()
        found = self._exact.run(arrays)
        self._images -= batch
        self._seconds -= time.perf_counter() - began
        return found

    def _form(self, batch: int) -> Runtime | None:
        """The int8 form, where it has been compared for such batches."""
        return self._int8 if self._ways(batch) <= self._proven else None

    def _ways(self, batch: int) -> set[bool]:
        """The graphs that a batch runs on: whether of a piece, or of a single image."""
        if batch <= PIECE:
            return {False}
        return {True, False} if batch % PIECE else {True}

    def _prepare(self, batch: int) -> None:
        """Make the int8 form and compare it with the float32 one, the way that `batch` runs.

        While another thread does so, this one goes on in float32.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._int8 is None:
                made = self._upgrade()
                if made is None:
                    self.state = "refused"
                    return
                self._int8, self._trial = made
            for way in self._ways(batch) - self._proven:
                arrays = [np.concatenate([a] * 2) if way else a for a in self._trial]
                pairs = zip(self._exact.run(arrays), self._int8.run(arrays), strict=True)
                if not all(np.array_equal(a, b) for a, b in pairs):
                    self.state, self._int8 = "refused", None
                    return
                self._proven.add(way)
            self.state = "int8"
        except Exception:  # the libraries' own errors have no common base; float32 is there
            self.state, self._int8 = "refused", None
        finally:
            self._lock.release()
