"""Emulation of `pytorch_nndct.nn`."""

from __future__ import annotations

from typing import Any

from tutelage.core.errors import not_emulated

from . import modules

DeQuantStub, QuantStub = modules.DeQuantStub, modules.QuantStub

__all__ = ["DeQuantStub", "QuantStub", "modules"]


def __getattr__(name: str) -> Any:
    raise not_emulated("pytorch_nndct.nn", name)
