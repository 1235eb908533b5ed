"""Sums of products in convolutions and dense layers: lowered to float32, and compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.fixed_point import (
    EXACT_FLOAT32,
    INT8_BOUND,
    MAX_SHIFT,
    Array,
    accumulator_bound,
    integers_of,
    least_bias_shift,
)
from tutelage.dpu.ops.int8 import clip_limits, doubled_bias, fix_point, input_fix_point, nonlinear
from tutelage.dpu.ops.lowering import (
    Grid,
    declared,
    exact,
    finish,
    finish_int8,
    half,
    parameter,
    precision,
)
from tutelage.dpu.ops.refusal import Refusal

if TYPE_CHECKING:
    from tutelage.dpu.ops.compiling import Compilation, Sink
    from tutelage.dpu.ops.lowering import OnnxGraph


def sum_grid(
    op: Any, x: Grid, weights: tuple[Any, Array], constants: Mapping[str, Array]
) -> Grid | None:
    """Return the grid of sums of products, from the grids of the constants; None if unknown.

    Parameters
    ----------
    weights : the op that produces them, and their values with the output channels first
    """
    fix, values = weights
    grid = declared(fix)
    if grid is None:
        return None
    point, bias = x.point + grid.point, None
    if op.get_input_num("bias"):
        bias_grid = declared(op.get_input_op("bias"))
        bias = parameter(constants, op, "bias")
        if bias is None or bias_grid is None:
            return None
        point = max(point, bias_grid.point)
        bias = integers_of(bias, point).astype(np.int64)
    steps = integers_of(values, grid.point).astype(np.int64)
    bound = int(accumulator_bound(steps << (point - x.point - grid.point), bias, x.bound))
    return exact(point, bound)


def fixed_convolution(
    op: Any, graph: OnnxGraph, x: str, weights: Array, order: Sequence[int], kind: str,
    attrs: dict[str, Any],
) -> str:  # fmt: skip
    """Emit an int8 convolution of any kind; returns the name of its result, which is NCHW."""
    given = weights
    weights, bias, point = _accumulator(op, graph, weights)
    shift = point - fix_point(op)
    limits = clip_limits(nonlinear(op))
    how = precision(int(accumulator_bound(weights, bias))) if shift <= MAX_SHIFT + 1 else "wide"
    if how == "wide":
        graph.wide_ops.append(op.get_name())
        return _wide(graph, x, weights, bias, order, kind, attrs, shift, limits)
    scale = 2.0**-shift
    if op.get_name() in graph.form.products and how == "round":
        kernel = _int8_kernel(op, graph, given, order)
    else:
        kernel = graph.constant(weights.transpose(order) * scale)
    inputs = [x, kernel, graph.constant(bias * scale + half(how, shift))]
    return finish_int8(op, graph, graph.node(kind, inputs, **attrs), how)


def _int8_kernel(op: Any, graph: OnnxGraph, weights: Array, order: Sequence[int]) -> str:
    """Emit the weights as int8 times a power of two."""
    shift = input_fix_point(op) + input_fix_point(op, "weights") - fix_point(op)
    scale = graph.constant(2.0**-shift), graph.constant(0, np.int8)
    return graph.node(
        "DequantizeLinear", [graph.constant(weights.transpose(order), np.int8), *scale]
    )


def _accumulator(op: Any, graph: OnnxGraph, weights: Array) -> tuple[Array, Array, int]:
    """Return weights and bias (int64) in units of the accumulator, and its fix point.

    If the bias is one bit finer than a product, so is the accumulator (`int8.doubled_bias`).
    """
    point = input_fix_point(op) + input_fix_point(op, "weights")
    given = parameter(graph.parameters, op, "bias")
    if given is None:
        return weights.astype(np.int64), np.zeros(len(weights), np.int64), point
    bias = doubled_bias(op, given, point)
    if np.any(bias & 1):
        return weights.astype(np.int64) << 1, bias, point + 1
    return weights.astype(np.int64), bias >> 1, point


def _wide(
    graph: OnnxGraph, x: str, weights: Array, bias: Array, order: Sequence[int], kind: str,
    attrs: dict[str, Any], shift: int, limits: tuple[int, int],
) -> str:  # fmt: skip
    """Emit channel groups that are exact in float32, with sum and rounding in float64."""
    depth = weights.shape[3]
    worst = max(1, int(np.abs(weights.astype(np.int64)).sum((1, 2)).max()) * INT8_BOUND)
    step = max(1, (EXACT_FLOAT32 - 1) // worst) if attrs.get("group", 1) == 1 else depth
    total = ""
    for start in range(0, depth, step):
        stop = min(start + step, depth)
        part = x
        if (start, stop) != (0, depth):
            ends = [graph.constant([v], np.int64) for v in (start, stop, 1)]
            part = graph.node("Slice", [x, *ends])
        w = graph.constant(weights[..., start:stop].transpose(order))
        result = graph.cast(graph.node(kind, [part, w], **attrs), np.float64)
        total = graph.node("Add", [total, result]) if total else result
    total = graph.node("Add", [total, graph.constant(bias.reshape(1, -1, 1, 1), np.float64)])
    total = graph.node("Mul", [total, graph.constant(2.0**-shift, np.float64)])
    if shift > 0:
        total = graph.node("Add", [total, graph.constant(0.5, np.float64)])
    clipped = finish(graph, total, "floor", *limits, dtype=np.float64)
    return graph.cast(clipped, np.float32)


def compile_convolution(
    op: Any, sink: Sink, to: Compilation, name: str, operands: Sequence[Any],
    weights: tuple[Array, int], **window: Any,
) -> Any:  # fmt: skip
    """Add a convolution of the map `operands[0]` with the constant `operands[1]`.

    Parameters
    ----------
    weights : int8 values of the constant, output channels first, and their fix point

    Raises
    ------
    Refusal
        The DPU does not support a shift.
    """
    accumulator = (to.point(operands[0]) or 0) + weights[1]
    shift, activation = accumulator - sink.fix_point, sink.nonlinear
    if not 0 <= shift <= MAX_SHIFT:
        raise Refusal(f"output shift {shift}; the DPU supports 0 to {MAX_SHIFT}")
    bias: tuple[Array | None, int] = (None, 0)
    names = [_constant_name(operands[1])]
    if op.get_input_num("bias"):
        bias = _bias(op.get_input_op("bias"), to, accumulator, least_bias_shift(shift))
        names.append(_constant_name(op.get_input_op("bias")))
    return to.model.conv2d(
        name, _map(operands[0], to), *weights, *bias, sink.fix_point,
        nonlinear=activation, names=(names[0], names[-1]), **window,
    )  # fmt: skip


def _bias(fix: Any, to: Compilation, accumulator: int, least: int) -> tuple[Array, int]:
    """Return a bias's integers and fix point; raise Refusal if they do not fit the accumulator."""
    bias, point = to.integers(fix, "bias")
    if not least <= accumulator - point <= MAX_SHIFT:
        raise Refusal(f"bias shift {accumulator - point}; the DPU supports {least} to {MAX_SHIFT}")
    if shifted_bias(bias, point - accumulator) is None:
        raise Refusal(f"bias shift {accumulator - point} would round the bias")
    return bias, point


def shifted_bias(bias: Array, finer: int) -> Array | None:
    """Return the bytes of a bias `finer` bits finer than the accumulator; None if inexact.

    The DPU itself supports one bit (`int8.doubled_bias`). AMD's compiler shifts further bits out of
    the bytes and keeps the fix point (measured on its files). How it rounds them is not known: no
    file was found in both forms.
    """
    lost = max(0, finer - 1)
    if np.any(bias.astype(np.int64) & ((1 << lost) - 1)):
        return None
    return bias >> lost


def _map(op: Any, to: Compilation) -> Any:
    """Return an op's value on the DPU; a vector [1, C] becomes a map of one pixel."""
    x = to.int8(op)
    if x.get_output_tensor().ndim == 4:
        return x
    if x.get_type() == "reshape-fix":
        source = x.get_input_op("input")
        if source.get_output_tensor().dims[:3] == [1, 1, 1]:
            return source
    name, (_, channels) = f"{x.get_name()}_pixel", x.get_output_tensor().dims
    made = next((op for op in x.get_fanout_ops() if op.get_name() == name), None)  # of a reader
    return made or to.model.reshape(name, x, [1, 1, 1, channels])


def _constant_name(fix: Any) -> str:
    """Return AMD's compiler's name of a parameter: the constant's name and "_new"."""
    return f"{fix.get_input_op('input').get_name()}_new"
