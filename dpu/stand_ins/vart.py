"""Stands in for the board's `vart`: `dpu.vart`."""

from __future__ import annotations

from dpu.vart import TUTELAGE_EMULATION, Runner, RunnerExt, TensorBuffer, __getattr__

__all__ = ["TUTELAGE_EMULATION", "Runner", "RunnerExt", "TensorBuffer", "__getattr__"]
