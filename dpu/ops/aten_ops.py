"""Ops that vai_q_pytorch knows no XIR op for and exports by PyTorch's names, or by its own.

It writes their tensors and the output's shape into the file, but of most arguments nothing
(Vitis AI, nndct_shared/compile/xop_creator.py). Those ops are here, and those functions of one
value in `dpu/ops/activation_ops.py`, whose result the shapes settle; where one of the arguments has
a default in PyTorch, that is taken. Anything else wants a plugin.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tutelage.core.errors import UnsupportedError, unknown_op
from tutelage.core.fixed_point import Array, Inputs


def mean_axes(op: Any) -> tuple[int, ...]:
    """The axes of an aten::mean, found from the sizes of its input and output.

    Raises
    ------
    UnknownOpError
        The sizes do not say which axes they are.
    """
    before, after = (t.dims for t in (op.get_input_tensor("input", 0), op.get_output_tensor()))
    inner, gone = range(1, len(before)), len(before) - len(after)
    if gone == 0:
        fits = [tuple(axis for axis in inner if before[axis] != after[axis])]
    else:
        subsets = itertools.combinations(inner, gone) if gone > 0 else []
        fits = [axes for axes in subsets if reduced(before, axes, False) == after]
    if len(fits) != 1 or reduced(before, fits[0], gone == 0) != after:
        raise unknown_op(op, f"whose axes the shapes {before} and {after} do not settle")
    return fits[0]


def reduced(dims: list[int], axes: tuple[int, ...], keep: bool) -> list[int]:
    """`dims` without `axes`, or with ones in their places."""
    if keep:
        return [1 if axis in axes else size for axis, size in enumerate(dims)]
    return [size for axis, size in enumerate(dims) if axis not in axes]


def mean(op: Any, inputs: Inputs) -> Array:
    """aten::mean: the exact mean over `mean_axes`."""
    x = inputs["input"][0]
    keep = len(op.get_output_tensor().dims) == x.ndim
    return np.asarray(x.astype(np.float64).mean(mean_axes(op), keepdims=keep))


def norm_axes(op: Any) -> tuple[tuple[int, ...], bool]:
    """The axes of an nndct_normalize and whether they stay, from its attributes dim and keepdim."""
    axes = listed_axes(op, "dim") or tuple(range(len(op.get_input_tensor("input", 0).dims)))
    return axes, bool(op.get_attrs().get("keepdim"))


def listed_axes(op: Any, name: str) -> tuple[int, ...]:
    """The axes in the attribute `name`, a number or a list, from 0 up; () where it is not set."""
    given, rank = op.get_attrs().get(name), len(op.get_input_tensor("input", 0).dims)
    listed = given if isinstance(given, (list, tuple)) else [] if given is None else [given]
    return tuple(int(axis) % rank for axis in listed)


def norm(op: Any, inputs: Inputs) -> Array:
    """nndct_normalize: torch.norm, ``sum(|x|**p)**(1/p)`` over `norm_axes`, float32.

    Its exporter writes these arguments: p, dim, keepdim (pytorch_nndct's aten::norm).
    """
    x, power = np.abs(inputs["input"][0].astype(np.float64)), op.get_attrs().get("p", 2)
    axes, keep = norm_axes(op)
    if not 0 < power < math.inf:
        raise UnsupportedError(f"op {op.get_name()!r}: a norm of order {power}")
    return np.asarray((x**power).sum(axes, keepdims=keep) ** (1 / power), np.float32)


OPS: dict[str, Callable[[Any, Inputs], Array]] = {
    "aten::mean": mean,
    "nndct_normalize": norm,
}
"""The op types of this file and their functions."""
