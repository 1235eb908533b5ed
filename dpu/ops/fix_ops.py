"""The DPU's operators in plain integer numpy: the reference that everything is held against.

One function per op type. Each takes the op (its attributes and the fix points
of its tensors) and the int8 arrays of its inputs by argument name, with any
batch size, and returns the int8 output. Sources are named in the docstrings;
"XIR" stands for the op definitions that AMD's compiler writes into every file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from tutelage.core.errors import UnsupportedError
from tutelage.core.fixed_point import (
    FARTHEST_FIX_POINT,
    GUARD_BITS,
    INT8_MAX,
    INT8_MIN,
    LEAKY_NUMERATOR,
    LEAKY_SHIFT,
    RELU6_HIGHEST,
    SIXTH_NUMERATOR,
    SIXTH_SHIFT,
    Array,
    Inputs,
    dequantise,
    pool_reciprocal,
    quantise_int8,
    relu6_highest,
    saturate,
    shift_round,
)
from tutelage.dpu.ops import cpu_ops, resize_ops
from tutelage.dpu.ops.sliding_window import (
    Window,
    convolve,
    convolve_depthwise,
    insert_zeros,
    transposed_window_of,
    window_of,
)


def fix_point(op: Any) -> int:
    """The fix point of an op's output tensor."""
    return _fix_point_of(op.get_output_tensor())


def input_fix_point(op: Any, arg: str = "input", index: int = 0) -> int:
    """The fix point of one of an op's input tensors."""
    return _fix_point_of(op.get_input_tensor(arg, index))


def _fix_point_of(tensor: Any) -> int:
    point = int(tensor.get_attr("fix_point"))
    if abs(point) > FARTHEST_FIX_POINT:
        raise UnsupportedError(f"tensor {tensor.name!r}: fix point {point} is out of range")
    return point


def activate(acc: Array, op: Any, acc_fix_point: int) -> Array:
    """The end of every convolution, pool and eltwise: nonlinearity, shift, rounding, saturation.

    ``q = clip(floor(acc / 2**s + 1/2))`` with ``s = acc_fix_point - fix_point``
    (measured on AMD's models). RELU clips at 0, RELU6 at 0 and `RELU6_HIGHEST`,
    LEAKYRELU multiplies negative accumulators by 26/256 before the shift.
    HSIGMOID and HSWISH are `hard_sigmoid_fix` and `hard_swish_fix` on the
    result rounded to the fix point `hsigmoid_in` (XIR attributes).
    """
    kind = nonlinear(op)
    out = fix_point(op)
    if kind in ("HSIGMOID", "HSWISH"):
        between = int(op.get_attr("hsigmoid_in"))
        q = saturate(shift_round(acc, acc_fix_point - between)).astype(np.int64)
        return _hard(q, between, op, kind == "HSWISH", out)
    shift = acc_fix_point - out
    if kind == "LEAKYRELU":
        acc = np.where(acc < 0, acc * LEAKY_NUMERATOR, acc << LEAKY_SHIFT)
        shift += LEAKY_SHIFT
    return saturate(shift_round(acc, shift), *limits(kind))


ACTIVATIONS = {"relu": "RELU", "relu6": "RELU6", "leaky-relu": "LEAKYRELU"}
"""The attribute `nonlinear` of compiled files, by the op type of quantised ones."""


def nonlinear(op: Any) -> str:
    """The op's `nonlinear` attribute, "NONE" where it has none."""
    kind = op.get_attr("nonlinear") if op.has_attr("nonlinear") else "NONE"
    kind = kind or "NONE"
    if kind not in ("NONE", "RELU", "RELU6", "LEAKYRELU", "HSIGMOID", "HSWISH"):
        raise UnsupportedError(f"op {op.get_name()!r}: nonlinear {kind!r} is not implemented")
    return str(kind)


def limits(kind: str) -> tuple[int, int]:
    """Least and greatest int8 value that a nonlinearity of the DPU leaves."""
    low = 0 if kind in ("RELU", "RELU6") else INT8_MIN
    return low, RELU6_HIGHEST if kind == "RELU6" else INT8_MAX


def doubled_bias(op: Any, bias: Array, acc_fix_point: int) -> Array:
    """The bias of an op in halves of the accumulator's step: ``q_b * 2**b``, int64.

    ``b = max(0, acc_fix_point - p_b + 1)``: the DPU doubles the accumulator, so
    that a bias may be one bit finer than it. Where the bias is finer still, the
    bytes of a compiled file are shifted already, although the fix point is the
    old one. Source: executing the instructions of AMD's compiled models.
    """
    shift = max(0, acc_fix_point - input_fix_point(op, "bias") + 1)
    if shift > _FARTHEST_BIAS:
        raise UnsupportedError(f"op {op.get_name()!r}: a bias shift of {shift - 1}")
    return bias.astype(np.int64) << shift


_FARTHEST_BIAS = 30
"""Bits that a bias is shifted here at most; the DPU has 17."""


def finish(acc: Array, op: Any, inputs: Inputs, acc_fix_point: int) -> Array:
    """`activate` of ``(2 acc + q_b * 2**b) / 2``: one rounding, at the end.

    Parameters
    ----------
    acc : int64, outputs last
    acc_fix_point : of `acc`
    """
    if not inputs.get("bias"):
        return activate(acc, op, acc_fix_point)
    acc = (acc << 1) + doubled_bias(op, inputs["bias"][0], acc_fix_point)
    return activate(acc, op, acc_fix_point + 1)


def _convolution(op: Any, inputs: Inputs, x: Array, window: Window, convolution: Any) -> Array:
    """Padding, accumulation by blocks of rows, and `finish`."""
    weights = inputs["weights"][0].astype(np.int64)
    if convolution is convolve_depthwise:
        weights = depthwise_weights(weights, x.shape[3])
    padded = window.pad(x)
    dims = op.get_output_tensor().dims
    out = np.empty((x.shape[0], *dims[1:]), np.int8)
    acc_fix_point = input_fix_point(op) + input_fix_point(op, "weights")
    for rows in window.row_blocks(x.shape[0] * dims[2] * dims[3]):
        acc = convolution(padded, weights, window, rows)
        out[:, rows] = finish(acc, op, inputs, acc_fix_point)
    return out


def depthwise_weights(weights: Array, channels: int) -> Array:
    """Depthwise weights as (multiplier, H, W, C), also where the file has (C, H, W, 1)."""
    if weights.shape[3] != channels and weights.shape[0] == channels and weights.shape[3] == 1:
        return np.ascontiguousarray(weights.transpose(3, 1, 2, 0))
    return weights


def conv2d_fix(op: Any, inputs: Inputs) -> Array:
    """``acc = sum(q_in * q_w)``, then `finish`; weights OHWI (measured)."""
    x = inputs["input"][0]
    return _convolution(op, inputs, x, window_of(op.get_attrs(), *x.shape[1:3]), convolve)


def depthwise_conv2d_fix(op: Any, inputs: Inputs) -> Array:
    """As conv2d-fix with one kernel per channel; weights (multiplier, H, W, C) (XIR)."""
    x = inputs["input"][0]
    window = window_of(op.get_attrs(), *x.shape[1:3])
    return _convolution(op, inputs, x, window, convolve_depthwise)


def transposed_conv2d_fix(op: Any, inputs: Inputs) -> Array:
    """A convolution over the input with zeros between its pixels.

    The file's weights are turned already: AMD's exporter reverses rows and
    columns of PyTorch's, so the taps are used as they lie (vai_q_pytorch,
    xir exporter).
    """
    x = inputs["input"][0]
    window = transposed_window_of(op.get_attrs(), *x.shape[1:3])
    spread = insert_zeros(x, *reversed(op.get_attr("stride")))
    return _convolution(op, inputs, spread, window, convolve)


def transposed_depthwise_conv2d_fix(op: Any, inputs: Inputs) -> Array:
    """As transposed-conv2d-fix with one kernel per channel."""
    x = inputs["input"][0]
    window = transposed_window_of(op.get_attrs(), *x.shape[1:3])
    spread = insert_zeros(x, *reversed(op.get_attr("stride")))
    return _convolution(op, inputs, spread, window, convolve_depthwise)


def inner_product_fix(op: Any, inputs: Inputs) -> Array:
    """``acc = x . w`` over the flattened input, then `finish`; weights (O, ...) (XIR)."""
    x = inputs["input"][0]
    weights = inputs["weights"][0].astype(np.int64)
    flat = x.reshape(x.shape[0], -1).astype(np.int64)
    acc = flat @ weights.reshape(weights.shape[0], -1).T
    out = finish(acc, op, inputs, input_fix_point(op) + input_fix_point(op, "weights"))
    return out.reshape(x.shape[0], *op.get_output_tensor().dims[1:])


def matmul_fix(op: Any, inputs: Inputs) -> Array:
    """``acc = a . b`` on the last two axes, either transposed on demand, then `finish` (XIR)."""
    a, b = (array.astype(np.int64) for array in inputs["input"])
    a = a.swapaxes(-1, -2) if cpu_ops.attr(op, "transpose_a", False) else a
    b = b.swapaxes(-1, -2) if cpu_ops.attr(op, "transpose_b", False) else b
    return finish(a @ b, op, inputs, input_fix_point(op) + input_fix_point(op, "input", 1))


def pool_fix(op: Any, inputs: Inputs) -> Array:
    """Maximum of the window, or its sum times a fixed-point reciprocal; then `activate`.

    Padding is -128 for the maximum and 0 for the average, whose divisor is the
    whole window (`pool_reciprocal`; vai_q_pytorch, DPUAvgPool).
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


def pool_type(op: Any) -> str:
    """ "MAX" or "AVG".

    Raises
    ------
    UnsupportedError
        The pool is of another type.
    """
    return _one_of(op, op.get_attr("type"), ("MAX", "AVG"))


def eltwise_type(op: Any) -> str:
    """ "ADD" (also where the file does not say it) or "MUL".

    Raises
    ------
    UnsupportedError
        The op is of another type.
    """
    return _one_of(op, cpu_ops.attr(op, "type", "ADD"), ("ADD", "MUL"))


def _one_of(op: Any, kind: Any, known: tuple[str, ...]) -> str:
    if kind not in known:
        raise UnsupportedError(f"op {op.get_name()!r}: type {kind!r} is not {' or '.join(known)}")
    return str(kind)


def eltwise_fix(op: Any, inputs: Inputs) -> Array:
    """Sum or product of the inputs, then `activate`.

    ADD floors each input to two bits below the coarsest one (`GUARD_BITS`), MUL
    is exact. ADD and MUL are what the DPU has (AMD's simulator).
    """
    arrays = [array.astype(np.int64) for array in inputs["input"]]
    points = [input_fix_point(op, "input", index) for index in range(len(arrays))]
    if eltwise_type(op) == "ADD":
        coarsest = min(points)
        # A shift of more bits than the value has leaves 0 or -1, as one of 63 does.
        kept = [
            (array << GUARD_BITS) >> min(point - coarsest, 63)
            for array, point in zip(arrays, points, strict=True)
        ]
        return activate(reduce(np.add, kept), op, coarsest + GUARD_BITS)
    return activate(reduce(np.multiply, arrays), op, sum(points))


def concat_fix(op: Any, inputs: Inputs) -> Array:
    """The inputs one after the other; one with another fix point is requantised first."""
    axis = op.get_attr("axis")
    parts = [
        _requantise(array, input_fix_point(op, "input", index), fix_point(op))
        for index, array in enumerate(inputs["input"])
    ]
    return np.concatenate(parts, axis)


def hard_sigmoid_fix(op: Any, inputs: Inputs) -> Array:
    """``max(0, q + 3) * 2731 / 2**14`` in fixed point, rounded to the output's fix point.

    Nothing caps it at 1: with an output fix point below 7 it runs on to 127, while
    AMD's quantiser stops at 1. Sources: AMD's simulator (instruction) and CPU runner;
    2731/16384 for 1/6 is vai_q_pytorch's, the shift is XIR's attribute
    `shift_hsigmoid` = 14 + p_in - p_out, which AMD's file confirms.
    """
    q = inputs["input"][0].astype(np.int64)
    return _hard(q, input_fix_point(op), op, False, fix_point(op))


def hard_swish_fix(op: Any, inputs: Inputs) -> Array:
    """``q * hard_sigmoid(q)``; the sigmoid keeps 8 bits with the fix point 7.

    Source: vai_q_pytorch's Hardswish, a product of x and its 8-bit hard sigmoid.
    """
    q = inputs["input"][0].astype(np.int64)
    return _hard(q, input_fix_point(op), op, True, fix_point(op))


HARD_SIGMOID_FIX_POINT = 7
"""Fix point of the hard sigmoid inside a hard swish: values in [0, 1]."""


def _hard(q: Array, point: int, op: Any, swish: bool, out_fix_point: int) -> Array:
    finest = max(point, 0)  # at which both q and 3 are integers
    # 24 bits to the left are beyond what int8 takes of the result.
    acc = np.maximum((q << min(finest - point, 24)) + (3 << min(finest, 40)), 0) * SIXTH_NUMERATOR
    gate_fix_point = HARD_SIGMOID_FIX_POINT if swish else out_fix_point
    gate = saturate(shift_round(acc, SIXTH_SHIFT + finest - gate_fix_point))
    if not swish:
        return gate
    return saturate(shift_round(q * gate, point + HARD_SIGMOID_FIX_POINT - out_fix_point))


def relu_fix(op: Any, inputs: Inputs) -> Array:
    """relu-fix, relu6-fix, leaky-relu-fix: ops of their own, whose ReLU6 clips at 6."""
    kind = {"relu-fix": "RELU", "relu6-fix": "RELU6", "leaky-relu-fix": "LEAKYRELU"}[op.get_type()]
    acc = inputs["input"][0].astype(np.int64)
    shift = input_fix_point(op) - fix_point(op)
    if kind == "LEAKYRELU":
        acc = np.where(acc < 0, acc * LEAKY_NUMERATOR, acc << LEAKY_SHIFT)
        shift += LEAKY_SHIFT
    low, high = limits("NONE" if kind == "LEAKYRELU" else "RELU")
    high = min(high, relu6_highest(fix_point(op))) if kind == "RELU6" else high
    return saturate(shift_round(acc, shift), low, high)


def pad_fix(op: Any, inputs: Inputs) -> Array:
    """Constant, edge-repeating or mirroring border; constant_values are int8 (XIR)."""
    values = op.get_attr("constant_values") if op.has_attr("constant_values") else b""
    fill = np.frombuffer(bytes(values), np.int8)
    return cpu_ops.pad_array(op, inputs["input"][0], int(fill[0]) if fill.size else 0)


def reduction_fix(op: Any, inputs: Inputs) -> Array:
    """Maximum, minimum, sum or mean over axes; the mean uses `pool_reciprocal` of (n, 1)."""
    kind = op.get_type().removeprefix("reduction_").removesuffix("-fix")
    x = inputs["input"][0].astype(np.int64)
    axes = tuple(op.get_attr("axis"))
    keep = bool(cpu_ops.attr(op, "keep_dims", False))
    shift = input_fix_point(op) - fix_point(op)
    if kind == "mean":
        count = math.prod(x.shape[axis] for axis in axes)
        numerator, extra = pool_reciprocal(count, 1)
        acc = x.sum(axes, keepdims=keep) * numerator
        return saturate(shift_round(acc, shift + extra))
    return saturate(shift_round(cpu_ops.REDUCTIONS[kind](x, axes, keepdims=keep), shift))


def moving_fix(op: Any, inputs: Inputs) -> Array:
    """Ops that only move values (upload, reshape-fix, ...): as their plain form, requantised."""
    plain = MOVES.get(op.get_type()) or cpu_ops.OPS[op.get_type().removesuffix("-fix")]
    moved = plain(op, {"input": [inputs["input"][0]]})
    return _requantise(moved, input_fix_point(op), fix_point(op))


MOVES: dict[str, Callable[[Any, Inputs], Array]] = {
    "downsample-fix": resize_ops.downsample,
    "tile-fix": resize_ops.blocks,
}
"""The moving ops that have no plain form of the same name."""


def resize_fix(op: Any, inputs: Inputs) -> Array:
    """upsample-fix, resize-fix: `resize_ops.resize` of the integers, rounded once at the end.

    Source: Vitis AI Library, cpu_task. Where a compiler leaves bilinear ones to the CPU, their
    last bit is its float32's.
    """
    resized = resize_ops.resize(op, {"input": [inputs["input"][0]]})
    shift = fix_point(op) - input_fix_point(op)
    if resized.dtype == np.int8:
        return _requantise(resized, -shift, 0)
    return quantise_int8(resized.astype(np.float64), shift)


def through_float(op: Any, inputs: Inputs) -> Array:
    """softmax-fix, sigmoid-fix, tanh-fix: dequantise, the plain op in float32, quantise."""
    plain = cpu_ops.OPS[op.get_type().removesuffix("-fix")]
    x = dequantise(inputs["input"][0], input_fix_point(op))
    return quantise_int8(plain(op, {"input": [x]}).astype(np.float64), fix_point(op))


def _requantise(array: Array, from_fix_point: int, to_fix_point: int) -> Array:
    if from_fix_point == to_fix_point:
        return array
    return saturate(shift_round(array.astype(np.int64), from_fix_point - to_fix_point))


OPS: dict[str, Callable[[Any, Inputs], Array]] = {
    "conv2d-fix": conv2d_fix,
    "depthwise-conv2d-fix": depthwise_conv2d_fix,
    "transposed-conv2d-fix": transposed_conv2d_fix,
    "transposed-depthwise-conv2d-fix": transposed_depthwise_conv2d_fix,
    "inner-product-fix": inner_product_fix,
    "matmul-fix": matmul_fix,
    "pool-fix": pool_fix,
    "eltwise-fix": eltwise_fix,
    "depthwise-fix": eltwise_fix,
    "concat-fix": concat_fix,
    "hard-sigmoid-fix": hard_sigmoid_fix,
    "hard-swish-fix": hard_swish_fix,
    "relu-fix": relu_fix,
    "relu6-fix": relu_fix,
    "leaky-relu-fix": relu_fix,
    "pad-fix": pad_fix,
    "reduction_max-fix": reduction_fix,
    "reduction_min-fix": reduction_fix,
    "reduction_sum-fix": reduction_fix,
    "reduction_mean-fix": reduction_fix,
    "softmax-fix": through_float,
    "sigmoid-fix": through_float,
    "tanh-fix": through_float,
    "upload": moving_fix,
    "download": moving_fix,
    "identity-fix": moving_fix,
    "reshape-fix": moving_fix,
    "flatten-fix": moving_fix,
    "squeeze-fix": moving_fix,
    "transpose-fix": moving_fix,
    "tile-fix": moving_fix,
    "downsample-fix": moving_fix,
    "pixel-shuffle-fix": moving_fix,
    "upsample-fix": resize_fix,
    "resize-fix": resize_fix,
    "strided_slice-fix": moving_fix,
}
"""Every -fix op type (and the two that copy to and from the DPU) and its function."""
