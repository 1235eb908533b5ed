"""Ops without XIR equivalent, which vai_q_pytorch exports by PyTorch's names or its own.

vai_q_pytorch writes their input tensors and the output's shape into the file, but few of their
arguments (Vitis AI, nndct_shared/compile/xop_creator.py). This module, and
`dpu/ops/elementwise.py` for functions of one value, implement the ops whose result follows from
the shapes; a missing argument with a default in PyTorch has that default. All others need a plugin.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tutelage.core.errors import UnsupportedError, unknown_op
from tutelage.core.fixed_point import Array, Inputs
from tutelage.dpu.ops.attributes import listed_axes, reduced
from tutelage.dpu.ops.registry import OpType, register


class Mean(OpType):
    """aten::mean."""

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        """Raise UnknownOpError if the shapes do not determine the axes."""
        if not op.has_output_tensor():
            return list(op.get_attr("shape"))
        keep = len(dims) == op.get_output_tensor().ndim
        return reduced(dims, mean_axes(op), keep)


class Norm(OpType):
    """nndct_normalize: torch.norm."""

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        return reduced(dims, *norm_axes(op))

    def keeps_batch(self, op: Any, moving: Sequence[Any]) -> bool:
        return 0 not in norm_axes(op)[0]


def mean_axes(op: Any) -> tuple[int, ...]:
    """Return the axes of an aten::mean, inferred from the shapes of its input and output.

    Raises
    ------
    UnknownOpError
        The shapes do not determine the axes.
    """
    before, after = (t.dims for t in (op.get_input_tensor("input", 0), op.get_output_tensor()))
    inner, gone = range(1, len(before)), len(before) - len(after)
    if gone == 0:
        fits = [tuple(axis for axis in inner if before[axis] != after[axis])]
    else:
        subsets = itertools.combinations(inner, gone) if gone > 0 else []
        fits = [axes for axes in subsets if reduced(before, axes, False) == after]
    if len(fits) != 1 or reduced(before, fits[0], gone == 0) != after:
        raise unknown_op(op, f"whose axes do not follow from the shapes {before} and {after}")
    return fits[0]


def mean(op: Any, inputs: Inputs) -> Array:
    """Return aten::mean: the exact mean over `mean_axes`."""
    x = inputs["input"][0]
    keep = len(op.get_output_tensor().dims) == x.ndim
    return np.asarray(x.astype(np.float64).mean(mean_axes(op), keepdims=keep))


def norm_axes(op: Any) -> tuple[tuple[int, ...], bool]:
    """Return the axes of an nndct_normalize and whether they are kept, from dim and keepdim."""
    axes = listed_axes(op, "dim") or tuple(range(len(op.get_input_tensor("input", 0).dims)))
    return axes, bool(op.get_attrs().get("keepdim"))


def norm(op: Any, inputs: Inputs) -> Array:
    """Return nndct_normalize: torch.norm, ``sum(|x|**p)**(1/p)`` over `norm_axes`, float32.

    The exporter writes its arguments p, dim and keepdim (pytorch_nndct's aten::norm).
    """
    x, power = np.abs(inputs["input"][0].astype(np.float64)), op.get_attrs().get("p", 2)
    axes, keep = norm_axes(op)
    if not 0 < power < math.inf:
        raise UnsupportedError(f"op {op.get_name()!r}: a norm of order {power} is not implemented")
    return np.asarray((x**power).sum(axes, keepdims=keep) ** (1 / power), np.float32)


register(Mean("aten::mean", mean), Norm("nndct_normalize", norm))
