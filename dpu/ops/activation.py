"""The DPU's activations: ReLUs, hard sigmoid and hard swish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.fixed_point import (
    INT8_MAX,
    LEAKY_SHIFT,
    LEAKY_SLOPE,
    SIXTH_NUMERATOR,
    SIXTH_SHIFT,
    Array,
    Inputs,
    is_leaky_slope,
    relu6_highest,
    saturate,
    shift_round,
)
from tutelage.dpu.ops.attributes import attr
from tutelage.dpu.ops.definition import ONE_INPUT, REQUIRED, Definition
from tutelage.dpu.ops.int8 import (
    HARD_SIGMOID_FIX_POINT,
    fix_point,
    hard_activation,
    input_fix_point,
    leaky,
)
from tutelage.dpu.ops.lowering import Grid, exact, is_map, one_fix_point
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.ops.registry import OpType, register

if TYPE_CHECKING:
    from tutelage.dpu.ops.compiling import Compilation, Sink
    from tutelage.dpu.ops.engine_layers import EngineLayer
    from tutelage.dpu.ops.lowering import OnnxGraph


class Relu(OpType):
    """ReLU: ``max(x, 0)``."""

    definition = Definition(ONE_INPUT)
    nonlinear = "RELU"

    def grid(self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]) -> Grid | None:
        return inputs[0] if op.get_output_tensor().ndim > 1 else None

    def int8_is_exact(
        self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]
    ) -> bool:
        return one_fix_point(op, inputs) and op.get_output_tensor().ndim > 1

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        return graph.node("Relu", [graph.x(op)]), is_map(op)


class Relu6(Relu):
    """ReLU6: ``min(max(x, 0), 6)``."""

    nonlinear = "RELU6"

    def grid(self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]) -> Grid | None:
        on_grid = inputs[0].point >= 0  # so that 6 is on the grid
        return super().grid(op, inputs, constants) if on_grid else None

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        real = op.get_type() == self.name
        top = 6 if real else min(relu6_highest(fix_point(op)), INT8_MAX)
        inputs = [graph.x(op), graph.constant(0), graph.constant(top)]
        return graph.node("Clip", inputs), is_map(op)


class LeakyRelu(Relu):
    """Leaky ReLU: ``x if x > 0 else alpha * x``."""

    definition = Definition(ONE_INPUT, (("alpha", REQUIRED, "float_value", 0.0, 1),))
    nonlinear = "LEAKYRELU"

    def activation(self, op: Any) -> str:
        return self.nonlinear if is_leaky_slope(op.get_attr("alpha")) else ""

    def grid(self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]) -> Grid | None:
        x = inputs[0]
        known = is_leaky_slope(op.get_attr("alpha"))
        return exact(x.point + LEAKY_SHIFT, x.bound << LEAKY_SHIFT) if known else None

    def int8_is_exact(
        self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]
    ) -> bool:
        return False

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        return graph.node("LeakyRelu", [graph.x(op)], alpha=LEAKY_SLOPE), is_map(op)


HARD_SIGMOID_FACTOR = 6 * SIXTH_NUMERATOR * 2.0**-SIXTH_SHIFT
"""Ratio of the DPU's hard sigmoid to ``clip(x + 3, 0, 6) / 6``."""


class HardSigmoid(OpType):
    """Hard sigmoid: ``clip(x + 3, 0, 6) / 6``."""

    scaled = bounded = on_dpu = True

    def factor(self, op: Any) -> float | None:
        return HARD_SIGMOID_FACTOR

    def engine_layers(self, op: Any, constants: Mapping[str, Array]) -> Sequence[EngineLayer]:
        from tutelage.dpu.ops.engine_layers import HARD_SIGMOID, AluLayer

        point, dims = input_fix_point(op), op.get_output_tensor().dims
        shift = SIXTH_SHIFT + point - fix_point(op)
        if point < 0 or shift < 0 or len(dims) != 4:
            raise Refusal(f"unsupported hard sigmoid from fix point {point} to {fix_point(op)}")
        return [
            AluLayer(
                op.get_name(),
                (op.get_input_op("input").get_name(),),
                output=(dims[1], dims[2]),
                mode=HARD_SIGMOID,
                shift_bias=point,
                shift_cut=shift,
            )
        ]

    def compile(self, op: Any, sink: Sink, to: Compilation) -> Any:
        source = op.get_input_op("input")
        point = to.point(source) or 0
        # The DPU does not clip at 1, but int8 does at fix point 7, or the input may be too small.
        if sink.fix_point < HARD_SIGMOID_FIX_POINT and 3 * 2.0**point < INT8_MAX:
            raise Refusal(f"the DPU's hard sigmoid exceeds 1 at fix point {sink.fix_point}")
        return to.model.hard_sigmoid(op.get_name(), to.int8(source), sink.fix_point)


def relu(op: Any, inputs: Inputs) -> Array:
    """Return ``max(x, 0)``."""
    return np.maximum(inputs["input"][0], 0)


def relu6(op: Any, inputs: Inputs) -> Array:
    """Return ``min(max(x, 0), 6)``."""
    return np.clip(inputs["input"][0], 0, 6)


def leaky_relu(op: Any, inputs: Inputs) -> Array:
    """Return ``x if x > 0 else alpha * x``; an alpha near 0.1 becomes the DPU's 26/256."""
    x = inputs["input"][0].astype(np.float64)
    alpha = attr(op, "alpha", LEAKY_SLOPE)
    return np.where(x > 0, x, x * (LEAKY_SLOPE if is_leaky_slope(alpha) else alpha))


def relu_fix(op: Any, inputs: Inputs) -> Array:
    """Return ``max(q, 0)`` of int8 values, requantised."""
    return _clipped(op, inputs, INT8_MAX)


def relu6_fix(op: Any, inputs: Inputs) -> Array:
    """Return a separate ReLU6 of int8 values; unlike a fused one it clips at 6 at any fix point."""
    return _clipped(op, inputs, min(INT8_MAX, relu6_highest(fix_point(op))))


def _clipped(op: Any, inputs: Inputs, high: int) -> Array:
    acc = inputs["input"][0].astype(np.int64)
    return saturate(shift_round(acc, input_fix_point(op) - fix_point(op)), 0, high)


def leaky_relu_fix(op: Any, inputs: Inputs) -> Array:
    """Return int8 values, the negative ones times 26/256."""
    shift = input_fix_point(op) - fix_point(op)
    return saturate(shift_round(*leaky(inputs["input"][0].astype(np.int64), shift)))


def hard_sigmoid(op: Any, inputs: Inputs) -> Array:
    """Return ``clip(x + 3, 0, 6) / 6`` (XIR); AMD's exporter appends the DPU's factor as `mul`."""
    x = inputs["input"][0].astype(np.float64)
    return np.asarray(np.clip(x + 3, 0, 6) / 6)


def hard_swish(op: Any, inputs: Inputs) -> Array:
    """Return ``x * hard_sigmoid(x)``."""
    return np.asarray(inputs["input"][0] * hard_sigmoid(op, inputs))


def hard_sigmoid_fix(op: Any, inputs: Inputs) -> Array:
    """Return ``max(0, q + 3) * 2731 / 2**14``, rounded to the output's fix point.

    The DPU does not clip it at 1: with an output fix point below 7 it continues to 127, while
    AMD's quantiser clips at 1. Sources: AMD's simulator (instruction) and CPU runner;
    2731/16384 for 1/6 is from vai_q_pytorch; the shift is XIR's attribute
    `shift_hsigmoid` = 14 + p_in - p_out, confirmed by AMD's file.
    """
    q = inputs["input"][0].astype(np.int64)
    return hard_activation(q, input_fix_point(op), False, fix_point(op))


def hard_swish_fix(op: Any, inputs: Inputs) -> Array:
    """Return ``q * hard_sigmoid(q)``; the sigmoid has 8 bits at fix point 7.

    Source: Hardswish in vai_q_pytorch, the product of x and its 8-bit hard sigmoid.
    """
    q = inputs["input"][0].astype(np.int64)
    return hard_activation(q, input_fix_point(op), True, fix_point(op))


register(
    Relu("relu", relu, relu_fix),
    Relu6("relu6", relu6, relu6_fix),
    LeakyRelu("leaky-relu", leaky_relu, leaky_relu_fix),
    HardSigmoid("hard-sigmoid", hard_sigmoid, hard_sigmoid_fix),
    OpType("hard-swish", hard_swish, hard_swish_fix),
)
