"""Stands in for `pytorch_nndct.nn.modules`."""

from __future__ import annotations

from typing import Any

from tutelage.core.errors import not_emulated

from . import functional
from .quant_stubs import DeQuantStub, QuantStub

__all__ = ["DeQuantStub", "QuantStub", "functional"]


def __getattr__(name: str) -> Any:
    raise not_emulated("pytorch_nndct.nn.modules", name)
