"""Readers of op attributes."""

from __future__ import annotations

from typing import Any


def attr(op: Any, name: str, default: Any) -> Any:
    """Return an attribute of the op, or `default` if it is not set."""
    return op.get_attr(name) if op.has_attr(name) else default


def listed_axes(op: Any, name: str) -> tuple[int, ...]:
    """Return the axes in the attribute `name`, a number or list, as non-negative; () if not set."""
    given, rank = op.get_attrs().get(name), len(op.get_input_tensor("input", 0).dims)
    listed = given if isinstance(given, (list, tuple)) else [] if given is None else [given]
    return tuple(int(axis) % rank for axis in listed)


def reduced(dims: list[int], axes: tuple[int, ...], keep: bool) -> list[int]:
    """Return `dims` without `axes`, or with them set to 1."""
    if keep:
        return [1 if axis in axes else size for axis, size in enumerate(dims)]
    return [size for axis, size in enumerate(dims) if axis not in axes]
