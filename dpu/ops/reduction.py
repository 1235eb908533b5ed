"""Reductions over axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.fixed_point import Array, Inputs, pool_reciprocal, saturate, shift_round
from tutelage.dpu.ops.attributes import attr, listed_axes, reduced
from tutelage.dpu.ops.int8 import fix_point, input_fix_point
from tutelage.dpu.ops.limits import MAX_POOL
from tutelage.dpu.ops.lowering import Grid, one_fix_point
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.ops.registry import OpType, register
from tutelage.dpu.ops.shape import check_one_fix_point

if TYPE_CHECKING:
    from tutelage.dpu.ops.compiling import Compilation, Sink
    from tutelage.dpu.ops.lowering import OnnxGraph

_FUNCTIONS: dict[str, Callable[..., Array]] = {
    "max": np.max, "min": np.min, "sum": np.sum, "mean": np.mean, "product": np.prod,
}  # fmt: skip
_PREFIX = "reduction_"


def keeps_batch_of(op: Any, moving: Sequence[Any]) -> bool:
    """Return whether an op that reduces over `axis`, by default all axes, keeps the batch."""
    before = op.get_input_tensor("input", 0).ndim
    return 0 not in (listed_axes(op, "axis") or range(before))


class Reduction(OpType):
    """Maximum, minimum, sum, mean or product over the axes in `axis`."""

    family = "pool"

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        return reduced(dims, listed_axes(op, "axis"), bool(attr(op, "keep_dims", False)))

    def keeps_batch(self, op: Any, moving: Sequence[Any]) -> bool:
        return keeps_batch_of(op, moving)


class Mean(Reduction):
    """Mean over axes."""

    becomes = "avgpool2d"


class Maximum(Reduction):
    """Maximum over axes, a max pool if over rows or columns."""

    becomes = "maxpool2d"
    takes_rows = on_dpu = True

    def grid(self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]) -> Grid | None:
        return inputs[0]

    def int8_is_exact(
        self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]
    ) -> bool:
        return one_fix_point(op, inputs) and op.get_output_tensor().ndim > 1

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        keep = int(bool(attr(op, "keep_dims", False)))
        axes = [int(axis) for axis in op.get_attr("axis")]
        return graph.node("ReduceMax", [graph.x(op, 0, False)], axes=axes, keepdims=keep), False

    def keeps_integers(self, op: Any) -> bool:
        return True

    def compile(self, op: Any, sink: Sink, to: Compilation) -> Any:
        """Compile to a max pool, as AMD's compiler does."""
        source = check_one_fix_point(op, sink, to)
        _, height, width, _ = source.get_output_tensor().dims
        axes = {axis % 4 for axis in op.get_attr("axis")}
        if not axes <= {1, 2} or not attr(op, "keep_dims", False):
            raise Refusal("only reductions over rows and columns with keep_dims are supported")
        kernel = [width if 2 in axes else 1, height if 1 in axes else 1]
        if max(kernel) > MAX_POOL:
            size = f"{kernel[0]}x{kernel[1]}"
            raise Refusal(f"reduction over {size}; the DPU supports 1 to {MAX_POOL}")
        return to.model.max_pool(op.get_name(), to.int8(source), kernel, [1, 1])


def reduction(op: Any, inputs: Inputs) -> Array:
    """Return the maximum, minimum, sum, mean or product over the axes in `axis`."""
    name = op.get_type().removeprefix(_PREFIX)
    x = inputs["input"][0]
    x = x if name in ("max", "min") else x.astype(np.float64)
    keep = bool(attr(op, "keep_dims", False))
    return np.asarray(_FUNCTIONS[name](x, listed_axes(op, "axis"), keepdims=keep))


def reduction_fix(op: Any, inputs: Inputs) -> Array:
    """Return the maximum, minimum, sum or mean over axes; the mean uses `pool_reciprocal(n, 1)`."""
    kind = op.get_type().removeprefix(_PREFIX).removesuffix("-fix")
    x = inputs["input"][0].astype(np.int64)
    axes = tuple(op.get_attr("axis"))
    keep = bool(attr(op, "keep_dims", False))
    shift = input_fix_point(op) - fix_point(op)
    if kind == "mean":
        count = math.prod(x.shape[axis] for axis in axes)
        numerator, extra = pool_reciprocal(count, 1)
        acc = x.sum(axes, keepdims=keep) * numerator
        return saturate(shift_round(acc, shift + extra))
    return saturate(shift_round(_FUNCTIONS[kind](x, axes, keepdims=keep), shift))


register(
    Maximum("reduction_max", reduction, reduction_fix),
    Mean("reduction_mean", reduction, reduction_fix),
    Reduction("reduction_min", reduction, reduction_fix),
    Reduction("reduction_sum", reduction, reduction_fix),
    Reduction("reduction_product", reduction),
)
