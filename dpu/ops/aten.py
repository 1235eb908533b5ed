"""Ops that vai_q_pytorch knows no XIR op for and exports by PyTorch's names, or by its own.

It writes their tensors and the output's shape into the file, but of most arguments nothing
(Vitis AI, nndct_shared/compile/xop_creator.py). Those ops are here, and those functions of one
value in `dpu/ops/elementwise.py`, whose result the shapes settle; where one of the arguments has
a default in PyTorch, that is taken. Anything else wants a plugin.
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
        """Refuse one whose shapes do not say what it does."""
        if not op.has_output_tensor():
            return list(op.get_attr("shape"))
        keep = len(dims) == op.get_output_tensor().ndim
        return reduced(dims, mean_axes(op), keep)


class Norm(OpType):
    """nndct_normalize, torch.norm."""

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        return reduced(dims, *norm_axes(op))

    def keeps_batch(self, op: Any, moving: Sequence[Any]) -> bool:
        return 0 not in norm_axes(op)[0]


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


def mean(op: Any, inputs: Inputs) -> Array:
    """aten::mean: the exact mean over `mean_axes`."""
    x = inputs["input"][0]
    keep = len(op.get_output_tensor().dims) == x.ndim
    return np.asarray(x.astype(np.float64).mean(mean_axes(op), keepdims=keep))


def norm_axes(op: Any) -> tuple[tuple[int, ...], bool]:
    """The axes of an nndct_normalize and whether they stay, from its attributes dim and keepdim."""
    axes = listed_axes(op, "dim") or tuple(range(len(op.get_input_tensor("input", 0).dims)))
    return axes, bool(op.get_attrs().get("keepdim"))


def norm(op: Any, inputs: Inputs) -> Array:
    """nndct_normalize: torch.norm, ``sum(|x|**p)**(1/p)`` over `norm_axes`, float32.

    Its exporter writes these arguments: p, dim, keepdim (pytorch_nndct's aten::norm).
    """
    x, power = np.abs(inputs["input"][0].astype(np.float64)), op.get_attrs().get("p", 2)
    axes, keep = norm_axes(op)
    if not 0 < power < math.inf:
        raise UnsupportedError(f"op {op.get_name()!r}: a norm of order {power}")
    return np.asarray((x**power).sum(axes, keepdims=keep) ** (1 / power), np.float32)


register(Mean("aten::mean", mean), Norm("nndct_normalize", norm))
