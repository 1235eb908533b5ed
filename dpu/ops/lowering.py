"""What op types need to lower themselves to float32 ONNX graphs that carry integers, exactly.

Tensors of -fix ops travel as their integers q, tensors of plain ops as real numbers that are
multiples of 2**-p. A convolution's weights carry the output shift, so its result is
``x = acc / 2**s``. Rounding half up is written as ``Round(x + 2**-(s+1))``: x is a multiple of
2**-s, so the added half step turns Round's ties to even into halves upwards, and runtimes fuse
Round and Clip into the convolution. All partial sums are multiples of 2**-(s+1); where their
magnitude stays below 2**24 such steps, float32 is exact in any order of summation. `precision`
proves that per layer. Where only the accumulator itself fits, ``Floor(x + 0.5)`` is used; where it
does not, input channels are split into groups that fit, and float64 adds the groups (exact to
2**53).

The same graph has a form for processors that multiply int8 (dpu/engine/int8_form.py): weights are
int8 constants times 2**-s, results pass QuantizeLinear with the scale 1. OpenVINO sums such
products in int32, makes a float32 of the sum, which is exact below 2**24, and goes on as above.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tutelage.core.fixed_point import EXACT_FLOAT32, INT8_BOUND, Array
from tutelage.dpu.ops.int8 import clip_limits, fix_point, nonlinear
from tutelage.dpu.ops.registry import type_of
from tutelage.dpu.ops.sliding_window import Window


@dataclass(frozen=True)
class Grid:
    """What is known of a tensor: multiples of 2**-point, at most `bound` of them in magnitude."""

    point: int
    bound: int


@dataclass(frozen=True)
class Int8Form:
    """What of a graph is computed with integers of 8 bits, by op name.

    Attributes
    ----------
    products : the ops whose products are those of int8
    results : the ops whose results are kept in 8 bits
    unsigned : of these ops, and of the graph's inputs, those that are never negative
    """

    products: frozenset[str] = frozenset()
    results: frozenset[str] = frozenset()
    unsigned: frozenset[str] = frozenset()


class OnnxGraph(Protocol):
    """The ONNX graph under construction: `tutelage.dpu.engine.onnx_lowering.Lowering`."""

    wide_ops: list[str]
    """Names of the ops that needed float64."""

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Constant values by op name."""

    def node(self, kind: str, inputs: list[str], **attrs: Any) -> str:
        """Add a node; returns the name of its output."""

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        """Add a constant; returns its name."""

    def cast(self, x: str, dtype: Any) -> str:
        """Add a cast to an element type of numpy's; returns the name of its output."""

    def x(self, op: Any, index: int = 0, channels_first: bool | None = None) -> str:
        """Return the name of an op's input, in NCHW or in the file's own order."""

    def is_given(self, op: Any) -> bool:
        """Whether an op's value is an input of the graph."""

    def grid(self, op: Any) -> Grid:
        """Return what is known of an op's value."""

    form: Int8Form
    """What is computed with integers of 8 bits."""


def precision(magnitude: int, rounds: bool = True) -> str:
    """Return how a sum of at most `magnitude` steps is computed: "round", "floor" or "wide"."""
    if 2 * magnitude + 1 < EXACT_FLOAT32:
        return "round"
    half_steps = 1 << 16 if rounds else 0
    return "floor" if magnitude + half_steps < EXACT_FLOAT32 else "wide"


def exact(point: int, bound: int) -> Grid | None:
    """Return the grid where float32 holds its values, else None."""
    return Grid(point, bound) if bound < EXACT_FLOAT32 else None


def declared(op: Any) -> Grid | None:
    """Return the grid that the file itself states: of int8 tensors and fix ops."""
    tensor = op.get_output_tensor()
    if tensor.is_int8 and tensor.has_attr("fix_point"):
        return Grid(int(tensor.get_attr("fix_point")), INT8_BOUND)
    kind = type_of(op)
    if kind.rounds and not kind.gives_int8:
        return Grid(int(op.get_attr("fix_point")), 1 << (int(op.get_attr("bit_width")) - 1))
    return None


def one_fix_point(op: Any, inputs: Any) -> bool:
    """Whether an int8 op reads grids of the fix point of its own result alone."""
    out = fix_point(op)
    return all(grid.point == out for grid in inputs)


def parameter(constants: Mapping[str, Array], op: Any, arg: str = "weights") -> Array | None:
    """Return the constant input `arg` of an op, or None where it is computed or missing."""
    if not op.get_input_num(arg):
        return None
    return constants.get(op.get_input_op(arg).get_name())


def half(how: str, shift: int) -> float:
    """Return what is added before rounding a multiple of 2**-shift."""
    if how == "floor":
        return 0.5
    return 2.0 ** -(shift + 1) if shift > 0 else 0.0


def finish(graph: OnnxGraph, x: str, how: str, low: int, high: int, dtype: Any = np.float32) -> str:
    """Round (the half step is in `x` already) and saturate: `quantise_int8` in ONNX."""
    rounded = graph.node("Round" if how == "round" else "Floor", [x])
    limits = [graph.constant(limit, dtype) for limit in (low, high)]
    return graph.node("Clip", [rounded, *limits])


def finish_int8(op: Any, graph: OnnxGraph, x: str, how: str) -> str:
    """`finish` of an int8 op, with the limits of its nonlinearity.

    Where the result is kept in 8 bits, QuantizeLinear follows, to which nothing is left to round:
    OpenVINO 2026.4 moves a sum in front of it into it, and may lose a half step there (measured).
    """
    x = finish(graph, x, how, *clip_limits(nonlinear(op)))
    name = op.get_name()
    return as_int8(graph, x, name in graph.form.unsigned) if name in graph.form.results else x


def as_int8(graph: OnnxGraph, x: str, unsigned: bool) -> str:
    """Say of a value that it is an integer of 8 bits."""
    scale = graph.constant(1.0), graph.constant(0, np.uint8 if unsigned else np.int8)
    return graph.node("DequantizeLinear", [graph.node("QuantizeLinear", [x, *scale]), *scale])


def is_map(op: Any) -> bool:
    """Whether an op's value has four axes, which travel as NCHW."""
    return bool(op.get_output_tensor().ndim == 4)


def has_pixels(window: Window) -> bool:
    """Whether no window can be in the padding alone, which the runtimes' pools do not take."""
    across = (window.kernel_w - 1) * window.dilation_w
    down = (window.kernel_h - 1) * window.dilation_h
    return max(window.pad_left, window.pad_right) <= across and (
        max(window.pad_top, window.pad_bottom) <= down
    )


def placed(graph: OnnxGraph, x: str, window: Window, dims: list[int]) -> tuple[str, dict[str, Any]]:
    """Return the input that a window needs, and ONNX's strides and pads for it.

    Along an axis with one output the stride says nothing; there the input is cut to what the
    kernel covers and the stride is 1. OpenVINO 2026.4 computes some such convolutions wrongly
    (one channel, one output column, strides 1 and 3; measured).
    """
    strides, before, after = [], [], []
    axes = (
        (window.out_h, window.kernel_h, window.dilation_h, window.stride_h, window.pad_top,
         window.pad_bottom),
        (window.out_w, window.kernel_w, window.dilation_w, window.stride_w, window.pad_left,
         window.pad_right),
    )  # fmt: skip
    for axis, (out, kernel, dilation, stride, first, last) in enumerate(axes, start=1):
        if out == 1 and stride > 1:
            end = (kernel - 1) * dilation + 1 - first  # of what the kernel covers
            if 0 < end < dims[axis]:
                ends = [graph.constant([v], np.int64) for v in (0, end, axis + 1)]
                x = graph.node("Slice", [x, *ends])
            stride, last = 1, max(0, end - dims[axis])
        strides.append(stride)
        before.append(first)
        after.append(last)
    return x, {"strides": strides, "pads": [*before, *after]}
