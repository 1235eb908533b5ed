"""Emulation of `pytorch_nndct.nn.modules`."""

from __future__ import annotations

from typing import Any

from tutelage.core.errors import not_emulated

from . import functional, quant_stubs

DeQuantStub, QuantStub = quant_stubs.DeQuantStub, quant_stubs.QuantStub

__all__ = ["DeQuantStub", "QuantStub", "functional", "quant_stubs"]


def __getattr__(name: str) -> Any:
    raise not_emulated("pytorch_nndct.nn.modules", name)
