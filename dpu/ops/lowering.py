"""Tools to lower op types to float32 ONNX graphs that compute integers exactly.

Tensors of -fix ops have their integers q as values, tensors of plain ops real numbers that are
multiples of 2**-p. A convolution's weights include the output shift, so its result is
``x = acc / 2**s``. Rounding half up is expressed as ``Round(x + 2**-(s+1))``: x is a multiple of
2**-s, so the added half step turns Round's ties to even into rounding up, and runtimes fuse
Round and Clip into the convolution. All partial sums are multiples of 2**-(s+1); if their
magnitude stays below 2**24 such steps, float32 is exact in any order of summation. `precision`
proves this per layer. If only the accumulator itself fits, ``Floor(x + 0.5)`` is used; if not even
that fits, input channels are split into groups that fit, and float64 adds the groups (exact up to
2**53).

The same graph has a form for processors that multiply int8 (dpu/engine/int8_form.py): weights are
int8 constants times 2**-s, and results pass through QuantizeLinear with scale 1. OpenVINO sums such
products in int32, converts the sum to float32, exactly if below 2**24, and continues as above.
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
    """Grid of a tensor's values: multiples of 2**-point, at most `bound` of them in magnitude."""

    point: int
    bound: int


@dataclass(frozen=True)
class Int8Form:
    """Parts of a graph that are computed with 8-bit integers, by op name.

    Attributes
    ----------
    products : ops that multiply int8
    results : ops whose results are stored in 8 bits
    unsigned : those of these ops, and of the graph's inputs, that are never negative
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
        """Add a cast to a numpy element type; returns the name of its output."""

    def x(self, op: Any, index: int = 0, channels_first: bool | None = None) -> str:
        """Return the name of an op's input, in NCHW or in the file's axis order."""

    def is_given(self, op: Any) -> bool:
        """Return whether an op's value is an input of the graph."""

    def grid(self, op: Any) -> Grid:
        """Return the grid of an op's values."""

    form: Int8Form
    """Parts that are computed with 8-bit integers."""


def precision(magnitude: int, rounds: bool = True) -> str:
    """Return how to compute a sum of at most `magnitude` steps: "round", "floor" or "wide"."""
    if 2 * magnitude + 1 < EXACT_FLOAT32:
        return "round"
    half_steps = 1 << 16 if rounds else 0
    return "floor" if magnitude + half_steps < EXACT_FLOAT32 else "wide"


def exact(point: int, bound: int) -> Grid | None:
    """Return the grid if float32 represents its values exactly, else None."""
    return Grid(point, bound) if bound < EXACT_FLOAT32 else None


def declared(op: Any) -> Grid | None:
    """Return the grid declared in the file, for int8 tensors and fix ops, else None."""
    tensor = op.get_output_tensor()
    if tensor.is_int8 and tensor.has_attr("fix_point"):
        return Grid(int(tensor.get_attr("fix_point")), INT8_BOUND)
    kind = type_of(op)
    if kind.rounds and not kind.gives_int8:
        return Grid(int(op.get_attr("fix_point")), 1 << (int(op.get_attr("bit_width")) - 1))
    return None


def one_fix_point(op: Any, inputs: Any) -> bool:
    """Return whether all inputs of an int8 op have the fix point of its result."""
    out = fix_point(op)
    return all(grid.point == out for grid in inputs)


def parameter(constants: Mapping[str, Array], op: Any, arg: str = "weights") -> Array | None:
    """Return the constant input `arg` of an op, or None if it is computed or missing."""
    if not op.get_input_num(arg):
        return None
    return constants.get(op.get_input_op(arg).get_name())


def half(how: str, shift: int) -> float:
    """Return the offset to add before rounding a multiple of 2**-shift."""
    if how == "floor":
        return 0.5
    return 2.0 ** -(shift + 1) if shift > 0 else 0.0


def finish(graph: OnnxGraph, x: str, how: str, low: int, high: int, dtype: Any = np.float32) -> str:
    """Round (`x` already includes the half step) and saturate: `quantise_int8` in ONNX."""
    rounded = graph.node("Round" if how == "round" else "Floor", [x])
    limits = [graph.constant(limit, dtype) for limit in (low, high)]
    return graph.node("Clip", [rounded, *limits])


def finish_int8(op: Any, graph: OnnxGraph, x: str, how: str) -> str:
    """Return `finish` of an int8 op, with the limits of its nonlinearity.

    If the result is stored in 8 bits, QuantizeLinear follows, which then has nothing to round:
    OpenVINO 2026.4 moves a preceding sum into it, and may lose a half step there (measured).
    """
    x = finish(graph, x, how, *clip_limits(nonlinear(op)))
    name = op.get_name()
    return as_int8(graph, x, name in graph.form.unsigned) if name in graph.form.results else x


def as_int8(graph: OnnxGraph, x: str, unsigned: bool) -> str:
    """Mark a value as an 8-bit integer by QuantizeLinear and DequantizeLinear."""
    scale = graph.constant(1.0), graph.constant(0, np.uint8 if unsigned else np.int8)
    return graph.node("DequantizeLinear", [graph.node("QuantizeLinear", [x, *scale]), *scale])


def is_map(op: Any) -> bool:
    """Return whether an op's value has four axes, which are lowered as NCHW."""
    return bool(op.get_output_tensor().ndim == 4)


def has_pixels(window: Window) -> bool:
    """Return whether every window covers a pixel, as the pools of the runtimes require."""
    across = (window.kernel_w - 1) * window.dilation_w
    down = (window.kernel_h - 1) * window.dilation_h
    return max(window.pad_left, window.pad_right) <= across and (
        max(window.pad_top, window.pad_bottom) <= down
    )


def placed(graph: OnnxGraph, x: str, window: Window, dims: list[int]) -> tuple[str, dict[str, Any]]:
    """Return the input for a window, and ONNX's strides and pads for it.

    Along an axis with a single output the stride has no effect; there the input is cut to the
    extent of the kernel and the stride is 1, because OpenVINO 2026.4 computes some such
    convolutions wrongly (one channel, one output column, strides 1 and 3; measured).
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
            end = (kernel - 1) * dilation + 1 - first  # of the kernel's extent
            if 0 < end < dims[axis]:
                ends = [graph.constant([v], np.int64) for v in (0, end, axis + 1)]
                x = graph.node("Slice", [x, *ends])
            stride, last = 1, max(0, end - dims[axis])
        strides.append(stride)
        before.append(first)
        after.append(last)
    return x, {"strides": strides, "pads": [*before, *after]}
