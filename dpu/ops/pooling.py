"""Maximum and average pools.

XIR's `avgpool2d` is an exact mean: AMD's exporter writes the DPU's factor as a separate op, a
`mul` by ``area * m / 2**n`` after the pool, followed by `fix` (factors.py). The int8 form of
both kinds is `pool-fix`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.fingerprint import DpuArray
from tutelage.core.fixed_point import (
    INT8_MAX,
    INT8_MIN,
    MAX_SHIFT,
    Array,
    Inputs,
    average_bound,
    pool_reciprocal,
)
from tutelage.dpu.ops.attributes import attr
from tutelage.dpu.ops.definition import KERNEL, ONE_INPUT, OPTIONAL, PADS, Attribute, Definition
from tutelage.dpu.ops.int8 import (
    activate,
    clip_limits,
    fix_point,
    input_fix_point,
    nonlinear,
    one_of,
    only_clips,
)
from tutelage.dpu.ops.limits import alu_limit
from tutelage.dpu.ops.lowering import (
    Grid,
    exact,
    finish_int8,
    half,
    has_pixels,
    one_fix_point,
    placed,
    precision,
)
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.ops.registry import OpType, register
from tutelage.dpu.ops.sliding_window import Window, window_of
from tutelage.dpu.ops.work import Operation, Shape, pool_work

if TYPE_CHECKING:
    from tutelage.dpu.ops.compiling import Compilation, Sink
    from tutelage.dpu.ops.engine_layers import EngineLayer
    from tutelage.dpu.ops.lowering import OnnxGraph

_GLOBAL: Attribute = ("global", OPTIONAL, "bool_value", False, 1)


class Pooling(OpType):
    """Common parts of maximum and average pools."""

    family = "pool"

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        window = window_of(op.get_attrs(), dims[1], dims[2])
        return [dims[0], window.out_h, window.out_w, dims[3]]

    def work(self, operation: Operation, inputs: Sequence[Shape], array: DpuArray) -> int:
        return pool_work(*operation.output, *operation.kernel, array)


class RealPool(Pooling):
    """A pool of real numbers."""

    on_dpu = True

    def limit(self, op: Any) -> str:
        return alu_limit(op)

    def dpu_window(self, op: Any) -> tuple[list[int], list[int], list[int]]:
        """Return kernel, stride and padding; the kernel of a global pool is the whole map."""
        if attr(op, "global", False):
            _, height, width, _ = op.get_input_tensor("input").dims
            return [width, height], [1, 1], [0, 0, 0, 0]
        return op.get_attr("kernel"), op.get_attr("stride"), self.padding(op)


class MaxPool(RealPool):
    """Maximum pool."""

    definition = Definition(ONE_INPUT, (*KERNEL, *PADS, _GLOBAL))
    moves = True
    takes_rows = True
    fuses = ("RELU", "RELU6")

    def grid(self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]) -> Grid | None:
        fits = has_pixels(self.window(op)) and op.get_output_tensor().ndim > 1
        return inputs[0] if fits else None

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        return _max_pool(op, graph, self.window(op)), True

    def keeps_integers(self, op: Any) -> bool:
        return True

    def compile(self, op: Any, sink: Sink, to: Compilation) -> Any:
        source = op.get_input_op("input")
        kernel, stride, pad = self.dpu_window(op)
        if to.point(source) != sink.fix_point:
            raise Refusal("max pools cannot change the fix point")
        activation, x = sink.nonlinear, to.int8(source)
        return to.model.max_pool(op.get_name(), x, kernel, stride, pad, nonlinear=activation)


class AvgPool(RealPool):
    """Average pool."""

    definition = Definition(
        ONE_INPUT,
        (
            *KERNEL,
            *PADS,
            _GLOBAL,
            ("count_include_pad", OPTIONAL, "bool_value", True, 1),
            ("count_include_invalid", OPTIONAL, "bool_value", True, 1),
        ),
    )
    scaled = True

    def factor(self, op: Any) -> float | None:
        window = self.window(op)
        return pool_factor(window) if divides_by_area(op, window) else None

    def scaled_grid(self, op: Any, x: Grid) -> Grid | None:
        """Return the grid of an exact sum times ``m / 2**n``."""
        window = self.window(op)
        _, shift = pool_reciprocal(window.kernel_w, window.kernel_h)
        bound = average_bound(window.kernel_w, window.kernel_h, x.bound)
        return exact(x.point + shift, bound) if has_pixels(window) else None

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        window = self.window(op)
        scale = pool_reciprocal(window.kernel_w, window.kernel_h)
        return _scaled_sum(op, graph, window, scale), True

    def compile(self, op: Any, sink: Sink, to: Compilation) -> Any:
        x = to.int8(op.get_input_op("input"))
        kernel, stride, pad = self.dpu_window(op)
        return to.model.avg_pool(op.get_name(), x, kernel, stride, sink.fix_point, pad)


class Pool(Pooling):
    """The int8 form of maximum and average pools."""

    def kind(self, op: Any) -> str:
        return {"MAX": "maxpool2d", "AVG": "avgpool2d"}.get(op.get_attr("type"), self.name)

    def engine_layers(self, op: Any, constants: Mapping[str, Array]) -> Sequence[EngineLayer]:
        """Return the pool; a fused ReLU becomes a sum of one operand, as MISC's pools lack it."""
        from tutelage.dpu.ops.engine_layers import (
            AVERAGE,
            MAXIMUM,
            AluLayer,
            EltwiseLayer,
            pool_shift_cut,
        )

        window, activation = self.window(op), nonlinear(op)
        if activation not in ("NONE", "RELU") or (window.dilation_h, window.dilation_w) != (1, 1):
            raise Refusal("the DPU does not support pools with this activation or dilation")
        shift = fix_point(op) - input_fix_point(op)
        mode, factor = MAXIMUM, 0
        if pool_type(op) == "AVG":
            mode = AVERAGE
            factor, finer = pool_reciprocal(window.kernel_w, window.kernel_h)
            shift -= finer
        pool = AluLayer(
            op.get_name(), (op.get_input_op("input").get_name(),),
            (window.kernel_h, window.kernel_w), (window.stride_h, window.stride_w),
            (window.pad_top, window.pad_left), output=(window.out_h, window.out_w), mode=mode,
            factor=factor, shift_cut=pool_shift_cut(shift),
        )  # fmt: skip
        if activation == "NONE":
            return [pool]
        return [pool, EltwiseLayer(op.get_name(), (op.get_name(),), relu=True)]

    def int8_is_exact(
        self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]
    ) -> bool:
        window = self.window(op)
        if not only_clips(op) or not has_pixels(window):
            return False
        if pool_type(op) == "MAX":
            return one_fix_point(op, inputs)
        _, shift, how = _average(op, window)
        return how != "wide" and (how == "round" or shift <= MAX_SHIFT + 1)

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        window, limits = self.window(op), clip_limits(nonlinear(op))
        if pool_type(op) == "MAX":
            y = _max_pool(op, graph, window)
            if limits != (INT8_MIN, INT8_MAX):
                y = graph.node("Clip", [y, *(graph.constant(limit) for limit in limits)])
            return y, True
        numerator, shift, how = _average(op, window)
        y = _scaled_sum(op, graph, window, (numerator, shift), half(how, shift))
        return finish_int8(op, graph, y, how), True


def pool_type(op: Any) -> str:
    """Return "MAX" or "AVG".

    Raises
    ------
    UnsupportedError
        The pool has another type.
    """
    return one_of(op, op.get_attr("type"), ("MAX", "AVG"))


def pool_factor(window: Window) -> float:
    """Return the ratio of the DPU's average to the mean: ``area * m / 2**n``."""
    numerator, shift = pool_reciprocal(window.kernel_w, window.kernel_h)
    return window.area * numerator * 2.0**-shift


def divides_by_area(op: Any, window: Window) -> bool:
    """Return whether an average pool divides every sum by the area of its kernel."""
    padded = window.pad_left or window.pad_right or window.pad_top or window.pad_bottom
    counted = (attr(op, name, True) for name in ("count_include_pad", "count_include_invalid"))
    return not padded or all(counted)


def maxpool2d(op: Any, inputs: Inputs) -> Array:
    """Return the maximum in each window."""
    x = inputs["input"][0]
    window = window_of(op.get_attrs(), *x.shape[1:3])
    padded, rows = window.pad(x, -np.inf), slice(0, window.out_h)
    return np.asarray(
        np.max([window.under_tap(padded, tap, rows) for tap in window.taps()], axis=0)
    )


def avgpool2d(op: Any, inputs: Inputs) -> Array:
    """Return the exact mean of each window (XIR), float64."""
    x = inputs["input"][0]
    window = window_of(op.get_attrs(), *x.shape[1:3])
    padded, rows = window.pad(x).astype(np.float64), slice(0, window.out_h)
    total = sum(window.under_tap(padded, tap, rows) for tap in window.taps())
    return np.asarray(total) / _pooled_pixels(op, window, *x.shape[1:3])


def _pooled_pixels(op: Any, window: Window, height: int, width: int) -> Array:
    """Return the divisor of each sum of an average pool, shape [out_h, out_w, 1] or [].

    It is the number of pixels under the kernel; without `count_include_invalid` only those on the
    map and its given padding count, without `count_include_pad` only those on the map (XIR).
    """
    left, right, top, bottom = attr(op, "pad", None) or [0, 0, 0, 0]
    if not attr(op, "count_include_pad", True):
        left = right = top = bottom = 0
    elif attr(op, "count_include_invalid", True):
        return np.asarray(window.area)
    ones = np.ones((1, height + top + bottom, width + left + right, 1))
    around = (window.pad_top - top, window.pad_bottom - bottom)
    beside = (window.pad_left - left, window.pad_right - right)
    counted = np.pad(ones, ((0, 0), around, beside, (0, 0)))
    taps = (window.under_tap(counted, tap, slice(0, window.out_h)) for tap in window.taps())
    return np.maximum(np.asarray(sum(taps))[0], 1)


def pool_fix(op: Any, inputs: Inputs) -> Array:
    """Return `int8.activate` of each window's maximum, or of its sum times a reciprocal.

    Padding is -128 for the maximum and 0 for the average, whose divisor is the area of
        the whole window (`pool_reciprocal`; vai_q_pytorch, DPUAvgPool).
    """
    x = inputs["input"][0]
    window = window_of(op.get_attrs(), *x.shape[1:3])
    every_row = slice(0, window.out_h)
    if pool_type(op) == "MAX":
        padded = window.pad(x, INT8_MIN)
        taps = (window.under_tap(padded, tap, every_row) for tap in window.taps())
        best = next(taps).copy()
        for values in taps:
            np.maximum(best, values, out=best)
        return activate(best.astype(np.int64), op, input_fix_point(op))
    padded = window.pad(x).astype(np.int64)
    total = sum(window.under_tap(padded, tap, every_row) for tap in window.taps())
    numerator, shift = pool_reciprocal(window.kernel_w, window.kernel_h)
    return activate(np.asarray(total) * numerator, op, input_fix_point(op) + shift)


def _average(op: Any, window: Window) -> tuple[int, int, str]:
    """Return numerator and shift from an average pool's sum to its output, and the precision."""
    numerator, shift = pool_reciprocal(window.kernel_w, window.kernel_h)
    shift += input_fix_point(op) - fix_point(op)
    return numerator, shift, precision(average_bound(window.kernel_w, window.kernel_h))


def _onnx_window(op: Any, graph: OnnxGraph, window: Window) -> tuple[str, dict[str, Any]]:
    dims = op.get_input_op("input").get_output_tensor().dims
    x, attrs = placed(graph, graph.x(op), window, dims)
    return x, {**attrs, "kernel_shape": [window.kernel_h, window.kernel_w]}


def _max_pool(op: Any, graph: OnnxGraph, window: Window) -> str:
    x, attrs = _onnx_window(op, graph, window)
    return graph.node("MaxPool", [x], **attrs)


def _scaled_sum(
    op: Any, graph: OnnxGraph, window: Window, scale: tuple[int, int], add: float | None = None
) -> str:
    """Emit the windows' sums times ``m / 2**n``, plus `add`, as a depthwise convolution."""
    x, attrs = _onnx_window(op, graph, window)
    channels = op.get_input_op("input").get_output_tensor().dims[3]
    numerator, shift = scale
    kernel = np.full((channels, 1, window.kernel_h, window.kernel_w), numerator * 2.0**-shift)
    inputs = [x, graph.constant(kernel)]
    if add is not None:
        inputs.append(graph.constant(np.full(channels, add)))
    return graph.node("Conv", inputs, group=channels, **attrs)


register(
    MaxPool("maxpool2d", maxpool2d),
    AvgPool("avgpool2d", avgpool2d),
    Pool("pool", None, pool_fix),
)
