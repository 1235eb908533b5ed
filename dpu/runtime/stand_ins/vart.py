"""Stand-in for the board's `vart`: `tutelage.dpu.runtime.vart`."""

from __future__ import annotations

from tutelage.dpu.runtime.vart import (
    TUTELAGE_EMULATION,
    Runner,
    RunnerExt,
    TensorBuffer,
    __getattr__,
)

__all__ = ["TUTELAGE_EMULATION", "Runner", "RunnerExt", "TensorBuffer", "__getattr__"]
