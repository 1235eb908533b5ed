"""Switch of a stage from float32 to int8, once it pays off and is verified to be identical.

Building and checking the int8 form takes some ten milliseconds per layer, which a few images do not
recover. So a stage computes in float32 until it has spent as much time.
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
"""Environment variable: "0" disables the int8 form, "1" builds it before the first run."""

LAYER_SECONDS = 0.02
"""Assumed time to build the int8 form, s per op; measured 0.02 to 0.03 s."""

LEAST_IMAGES = 512
"""Images before the form is built: its check computes four by the reference, which is about 66
times as slow as the float32 graph."""


def wanted() -> str:
    """Return the value of the environment variable: "0", "1" or "".

    Raises
    ------
    DpuError
        It has another value.
    """
    value = os.environ.get(INT8_VARIABLE, "")
    if value not in ("", "0", "1"):
        raise DpuError(f"{INT8_VARIABLE} is {value!r}; it must be 0 or 1")
    return value


class UpgradedRuntime:
    """Runtime that runs a stage in float32, and after some time in int8.

    Parameters
    ----------
    exact : runtime of the float32 form
    upgrade : builds the int8 form, and arrays for comparing both; returns None if there is none
    ops : number of ops of the stage
    at_once : whether to upgrade before the first run
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
        """Return the outputs for `arrays`."""
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
        """Return the int8 form if it has been compared for batches of this size, else None."""
        return self._int8 if self._ways(batch) <= self._proven else None

    def _ways(self, batch: int) -> set[bool]:
        """Return the graphs that a batch uses: True for that of a piece, False for one image."""
        if batch <= PIECE:
            return {False}
        return {True, False} if batch % PIECE else {True}

    def _prepare(self, batch: int) -> None:
        """Build the int8 form and compare it with the float32 form on the graphs for `batch`.

        While another thread does so, this one continues in float32.
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
        except Exception:  # the libraries' errors have no common base; float32 still works
            self.state, self._int8 = "refused", None
        finally:
            self._lock.release()
