"""Emulation of `pytorch_nndct.utils`."""

from __future__ import annotations

from typing import Any

from tutelage.core.errors import not_emulated


def register_custom_op(op_type: str, attrs_list: list[str] | None = None) -> Any:
    """Raise an error, since ops that XIR does not have cannot be quantised here."""
    raise not_emulated("pytorch_nndct.utils", "register_custom_op")


def __getattr__(name: str) -> Any:
    raise not_emulated("pytorch_nndct.utils", name)
