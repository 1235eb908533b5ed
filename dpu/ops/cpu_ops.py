"""Operators of a graph's CPU part, in numpy, and the plugins that users add.

One function per plain op type. Each takes the op and the arrays of its inputs
by argument name and returns the output. Sums of products are carried in
float64: operands that lie on power-of-two grids, as in a quantised .xmodel,
give exact results up to 2**53. Definitions: XIR's built-in ops (Apache-2.0).

The module needs numpy alone, so that the board can use it without the rest of
the emulation.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.errors import DpuError, UnsupportedError, plugin_name, unknown_op
from tutelage.core.fixed_point import (
    LEAKY_SLOPE,
    Array,
    Inputs,
    dequantise,
    is_leaky_slope,
    quantise,
)
from tutelage.dpu.ops import activation_ops, aten_ops, detection_ops, resize_ops
from tutelage.dpu.ops.sliding_window import (
    Window,
    convolve,
    convolve_depthwise,
    insert_zeros,
    transposed_window_of,
    window_of,
)

Plugin = Callable[[dict[str, list[Array]], dict[str, Any]], Array]


def load_plugins(path: str | os.PathLike[str]) -> dict[str, Plugin]:
    """The functions named ``op_<op_type>`` of a Python file, by the name behind ``op_``.

    It is the op type, or its `plugin_name` where the type is not a valid Python name.

    Raises
    ------
    DpuError
        The file cannot be read or run, or holds no such function.
    """
    file = Path(path)
    if not file.is_file():
        raise DpuError(f"{path}: no such plugin file")
    spec = importlib.util.spec_from_file_location(f"plugin_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise DpuError(f"{path}: not a Python file (the name must end in .py)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DpuError(f"{path}: {type(error).__name__}: {error}") from error
    plugins: dict[str, Plugin] = {}
    for name, value in vars(module).items():
        if name.startswith("op_") and callable(value):
            plugins[name[3:]] = value
    if not plugins:
        raise DpuError(f"{path}: no function named op_<op_type> in it")
    return plugins


def run_op(op: Any, inputs: Inputs, plugins: dict[str, Plugin] | None = None) -> Array:
    """Run one op: by a plugin if there is one, else by the function for its type.

    A compiler leaves int8 ops to the CPU too, where the DPU has none of the kind.

    Raises
    ------
    UnknownOpError
        Neither knows the op's type.
    DpuError
        A plugin failed or returned an array of another size than the file says.
    """
    kind = op.get_type()
    plugin = plugin_for(kind, plugins or {})
    if plugin is not None:
        return _run_plugin(op, inputs, plugin)
    from tutelage.dpu.ops.fix_ops import OPS as FIX_OPS  # which needs this module

    if kind not in FIX_OPS and kind not in OPS:
        raise unknown_op(op)
    return (FIX_OPS if kind in FIX_OPS else OPS)[kind](op, inputs)


def plugin_for(kind: str, plugins: dict[str, Plugin]) -> Plugin | None:
    """The plugin for an op type, by the type itself or by its `plugin_name`."""
    return plugins.get(kind) or plugins.get(plugin_name(kind))


def _run_plugin(op: Any, inputs: Inputs, plugin: Plugin) -> Array:
    floats = {name: [_as_declared(a) for a in arrays] for name, arrays in inputs.items()}
    try:
        result = np.asarray(plugin(floats, op.get_attrs()))
    except Exception as error:
        message = f"plugin for op {op.get_name()!r} ({op.get_type()}) failed"
        raise DpuError(f"{message}: {type(error).__name__}: {error}") from error
    tensor = op.get_output_tensor()
    if result.size != math.prod(tensor.dims):
        raise DpuError(
            f"plugin for op {op.get_name()!r} ({op.get_type()}) returned shape "
            f"{list(result.shape)}, the file says {tensor.dims}"
        )
    dtype = np.int8 if tensor.dtype in ("xint8", "int8") else np.float32
    return result.reshape(tensor.dims).astype(dtype)


def _as_declared(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def attr(op: Any, name: str, default: Any) -> Any:
    """An attribute of the op, or `default` where it is not set."""
    return op.get_attr(name) if op.has_attr(name) else default


_CONST_TYPES = {
    name: np.dtype(name)
    for name in ("float32", "float64", *(f"{s}int{n}" for s in ("", "u") for n in (8, 16, 32, 64)))
}


def const_array(op: Any) -> Array:
    """The values of a `const` op, from its data_type, shape and data.

    Raises
    ------
    UnsupportedError
        The data type is unknown or the bytes do not fill the shape.
    """
    kind = str(op.get_attr("data_type")).lower().lstrip("x")
    if kind not in _CONST_TYPES:
        raise UnsupportedError(f"op {op.get_name()!r}: data type {kind!r} is not implemented")
    data, dims = bytes(op.get_attr("data")), op.get_output_tensor().dims
    dtype = _CONST_TYPES[kind]
    if len(data) != math.prod(dims) * dtype.itemsize:
        raise UnsupportedError(f"op {op.get_name()!r}: {len(data)} bytes do not fill {dims}")
    return np.frombuffer(data, dtype).reshape(dims)


def fix(op: Any, inputs: Inputs) -> Array:
    """``clip(round(x * 2**p)) * 2**-p`` as float32, p the attribute fix_point."""
    point = op.get_attr("fix_point")
    return (_quantised(op, inputs["input"][0]) * 2.0**-point).astype(np.float32)


def float2fix(op: Any, inputs: Inputs) -> Array:
    """``clip(round(x * 2**p))`` as int8."""
    return _quantised(op, inputs["input"][0]).astype(np.int8)


def fix2float(op: Any, inputs: Inputs) -> Array:
    """``q * 2**-p`` as float32."""
    return dequantise(inputs["input"][0], op.get_attr("fix_point"))


def _quantised(op: Any, x: Array) -> Array:
    signed = bool(attr(op, "if_signed", True))
    return quantise(
        x,
        op.get_attr("fix_point"),
        attr(op, "round_mode", "DPU_ROUND"),
        op.get_attr("bit_width"),
        signed,
    )


def _convolution(op: Any, inputs: Inputs, x: Array, window: Window, convolution: Any) -> Array:
    weights = inputs["weights"][0].astype(np.float64)
    if convolution is convolve_depthwise and weights.shape[3] == 1 != x.shape[3]:
        weights = weights.transpose(3, 1, 2, 0)
    padded = window.pad(x)
    dims = op.get_output_tensor().dims
    out = np.empty((x.shape[0], *dims[1:]), np.float64)
    for rows in window.row_blocks(x.shape[0] * dims[2] * dims[3]):
        out[:, rows] = convolution(padded, weights, window, rows)
    if inputs.get("bias"):
        out += inputs["bias"][0]
    return out


def conv2d(op: Any, inputs: Inputs) -> Array:
    """Convolution, weights OHWI."""
    x = inputs["input"][0]
    return _convolution(op, inputs, x, window_of(op.get_attrs(), *x.shape[1:3]), convolve)


def depthwise_conv2d(op: Any, inputs: Inputs) -> Array:
    """One kernel per channel, weights (multiplier, H, W, C)."""
    x = inputs["input"][0]
    window = window_of(op.get_attrs(), *x.shape[1:3])
    return _convolution(op, inputs, x, window, convolve_depthwise)


def transposed_conv2d(op: Any, inputs: Inputs) -> Array:
    """Convolution over the input with zeros between its pixels; weights lie turned already."""
    x = inputs["input"][0]
    spread = insert_zeros(x, *reversed(op.get_attr("stride")))
    window = transposed_window_of(op.get_attrs(), *x.shape[1:3])
    return _convolution(op, inputs, spread, window, convolve)


def transposed_depthwise_conv2d(op: Any, inputs: Inputs) -> Array:
    """As transposed-conv2d with one kernel per channel."""
    x = inputs["input"][0]
    spread = insert_zeros(x, *reversed(op.get_attr("stride")))
    window = transposed_window_of(op.get_attrs(), *x.shape[1:3])
    return _convolution(op, inputs, spread, window, convolve_depthwise)


def inner_product(op: Any, inputs: Inputs) -> Array:
    """``x . w + bias`` over the flattened input, weights (O, ...)."""
    x, weights = inputs["input"][0], inputs["weights"][0]
    flat = x.reshape(x.shape[0], -1).astype(np.float64)
    out = flat @ weights.reshape(weights.shape[0], -1).T.astype(np.float64)
    return _plus_bias(out, inputs).reshape(x.shape[0], *op.get_output_tensor().dims[1:])


def matmul(op: Any, inputs: Inputs) -> Array:
    """``a @ b + bias``, either transposed on demand."""
    a, b = (array.astype(np.float64) for array in inputs["input"])
    a = a.swapaxes(-1, -2) if attr(op, "transpose_a", False) else a
    b = b.swapaxes(-1, -2) if attr(op, "transpose_b", False) else b
    return _plus_bias(a @ b, inputs)


def _plus_bias(out: Array, inputs: Inputs) -> Array:
    return out + inputs["bias"][0] if inputs.get("bias") else out


def maxpool2d(op: Any, inputs: Inputs) -> Array:
    """Maximum under the window."""
    x = inputs["input"][0]
    window = window_of(op.get_attrs(), *x.shape[1:3])
    padded, rows = window.pad(x, -np.inf), slice(0, window.out_h)
    return np.asarray(
        np.max([window.under_tap(padded, tap, rows) for tap in window.taps()], axis=0)
    )


def avgpool2d(op: Any, inputs: Inputs) -> Array:
    """Mean under the window (XIR).

    Exact: AMD's exporter writes the DPU's reciprocal as an op of its own, a `mul` by
    ``area * m / 2**n`` behind the pool, and `fix` behind that.
    """
    x = inputs["input"][0]
    window = window_of(op.get_attrs(), *x.shape[1:3])
    padded, rows = window.pad(x).astype(np.float64), slice(0, window.out_h)
    total = sum(window.under_tap(padded, tap, rows) for tap in window.taps())
    return np.asarray(total) / _pooled_pixels(op, window, *x.shape[1:3])


def _pooled_pixels(op: Any, window: Window, height: int, width: int) -> Array:
    """By how many pixels each sum of an average pool is divided, [out_h, out_w, 1] or [].

    All under the kernel; without `count_include_invalid` those on the map and its
    given padding, without `count_include_pad` those on the map (XIR).
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


def eltwise(op: Any, inputs: Inputs) -> Array:
    """Sum, product, difference, quotient, minimum or maximum of the inputs.

    Products are rounded to `PRODUCT_BITS` significant bits: a mean, or a sixth, times the factor
    of the DPU has fewer, and so becomes the DPU's value exactly (dpu/ops/factors.py).
    """
    kind = attr(op, "type", None) or _ELTWISE_TYPES.get(op.get_type(), "ADD")
    functions = {
        "ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "DIV": np.divide,
        "MIN": np.minimum, "MAX": np.maximum,
    }  # fmt: skip
    if kind not in functions:
        raise UnsupportedError(f"op {op.get_name()!r}: eltwise type {kind!r} is not implemented")
    total = inputs["input"][0].astype(np.float64)
    for array in inputs["input"][1:]:
        total = functions[kind](total, array)
    return _to_product_bits(total) if kind == "MUL" else np.asarray(total)


PRODUCT_BITS = 40
"""More than the DPU's factor (8 bits) times a sum over its largest window (24 bits) can have."""


def _to_product_bits(values: Array) -> Array:
    mantissas, exponents = np.frexp(values)
    return np.ldexp(np.rint(np.ldexp(mantissas, PRODUCT_BITS)), exponents - PRODUCT_BITS)


_ELTWISE_TYPES = {
    "add": "ADD",
    "sub": "SUB",
    "mul": "MUL",
    "div": "DIV",
    "min": "MIN",
    "max": "MAX",
}


def concat(op: Any, inputs: Inputs) -> Array:
    """The inputs one after the other along `axis`."""
    return np.concatenate(inputs["input"], op.get_attr("axis"))


def stack(op: Any, inputs: Inputs) -> Array:
    """The inputs joined along a new axis `axis`."""
    return np.stack(inputs["input"], attr(op, "axis", 0))


def reshape(op: Any, inputs: Inputs) -> Array:
    """reshape, flatten, squeeze: the same values in the shape that the file says, any batch."""
    x, dims = inputs["input"][0], op.get_output_tensor().dims
    batch = x.size // max(1, math.prod(op.get_input_tensor("input", 0).dims))
    return x.reshape([dims[0] * batch, *dims[1:]]) if dims else x.reshape(())


def transpose(op: Any, inputs: Inputs) -> Array:
    """Axes in the order of the attribute `order`."""
    return np.ascontiguousarray(inputs["input"][0].transpose(op.get_attr("order")))


def identity(op: Any, inputs: Inputs) -> Array:
    """upload, download, identity: the input."""
    return inputs["input"][0]


def pad(op: Any, inputs: Inputs) -> Array:
    """Border of constants, of the edge's values or mirrored."""
    values = attr(op, "constant_values", None) or [0.0]
    return pad_array(op, inputs["input"][0], float(values[0]))


def pad_array(op: Any, x: Array, fill: float) -> Array:
    """`x` with the border of the attributes paddings [before, after per axis] and mode."""
    flat = op.get_attr("paddings")
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    mode = str(attr(op, "mode", "CONSTANT")).upper()
    if len(pairs) != x.ndim:
        raise UnsupportedError(f"op {op.get_name()!r}: {len(pairs)} paddings for {x.ndim} axes")
    if mode == "CONSTANT":
        return np.pad(x, pairs, constant_values=fill)
    if mode not in ("REFLECT", "SYMMETRIC", "EDGE"):
        raise UnsupportedError(f"op {op.get_name()!r}: pad mode {mode!r} is not implemented")
    return np.pad(x, pairs, mode=mode.lower())  # type: ignore[call-overload]


def relu(op: Any, inputs: Inputs) -> Array:
    """``max(x, 0)``."""
    return np.maximum(inputs["input"][0], 0)


def relu6(op: Any, inputs: Inputs) -> Array:
    """``min(max(x, 0), 6)``."""
    return np.clip(inputs["input"][0], 0, 6)


def leaky_relu(op: Any, inputs: Inputs) -> Array:
    """``x if x > 0 else alpha * x``; an alpha near 0.1 is the DPU's 26/256."""
    x = inputs["input"][0].astype(np.float64)
    alpha = attr(op, "alpha", LEAKY_SLOPE)
    return np.where(x > 0, x, x * (LEAKY_SLOPE if is_leaky_slope(alpha) else alpha))


def hard_sigmoid(op: Any, inputs: Inputs) -> Array:
    """``clip(x + 3, 0, 6) / 6`` (XIR); AMD's exporter writes the DPU's factor as a `mul` behind."""
    x = inputs["input"][0].astype(np.float64)
    return np.asarray(np.clip(x + 3, 0, 6) / 6)


def hard_swish(op: Any, inputs: Inputs) -> Array:
    """``x * hard_sigmoid(x)``."""
    return np.asarray(inputs["input"][0] * hard_sigmoid(op, inputs))


def sigmoid(op: Any, inputs: Inputs) -> Array:
    """``1 / (1 + exp(-x))``, written so that it cannot overflow."""
    x = inputs["input"][0].astype(np.float64)
    return (0.5 * (1 + np.tanh(0.5 * x))).astype(np.float32)


def tanh(op: Any, inputs: Inputs) -> Array:
    """Hyperbolic tangent."""
    return np.tanh(inputs["input"][0].astype(np.float64)).astype(np.float32)


def softmax(op: Any, inputs: Inputs) -> Array:
    """``exp(x) / sum(exp(x))`` along `axis`."""
    x = inputs["input"][0].astype(np.float64)
    axis = attr(op, "axis", -1)
    powers = np.exp(x - x.max(axis, keepdims=True))
    return (powers / powers.sum(axis, keepdims=True)).astype(np.float32)


def strided_slice(op: Any, inputs: Inputs) -> Array:
    """``x[begin:end:strides]`` on every axis."""
    x, begin, end = inputs["input"][0], list(op.get_attr("begin")), list(op.get_attr("end"))
    begin[0], end[0] = 0, x.shape[0]
    return x[tuple(map(slice, begin, end, op.get_attr("strides")))]


REDUCTIONS: dict[str, Callable[..., Array]] = {
    "max": np.max, "min": np.min, "sum": np.sum, "mean": np.mean, "product": np.prod,
}  # fmt: skip


def reduction(op: Any, inputs: Inputs) -> Array:
    """Maximum, minimum, sum, mean or product over the axes `axis`."""
    name = op.get_type().removeprefix("reduction_")
    x = inputs["input"][0]
    x = x if name in ("max", "min") else x.astype(np.float64)
    keep = bool(attr(op, "keep_dims", False))
    return np.asarray(REDUCTIONS[name](x, aten_ops.listed_axes(op, "axis"), keepdims=keep))


OPS: dict[str, Callable[[Any, Inputs], Array]] = {
    "fix": fix,
    "float2fix": float2fix,
    "fix2float": fix2float,
    "conv2d": conv2d,
    "depthwise-conv2d": depthwise_conv2d,
    "transposed-conv2d": transposed_conv2d,
    "transposed-depthwise-conv2d": transposed_depthwise_conv2d,
    "inner-product": inner_product,
    "matmul": matmul,
    "maxpool2d": maxpool2d,
    "avgpool2d": avgpool2d,
    "eltwise": eltwise,
    "concat": concat,
    "stack": stack,
    "reshape": reshape,
    "flatten": reshape,
    "squeeze": reshape,
    "transpose": transpose,
    "identity": identity,
    "upload": identity,
    "download": identity,
    "pad": pad,
    "relu": relu,
    "relu6": relu6,
    "leaky-relu": leaky_relu,
    "hard-sigmoid": hard_sigmoid,
    "hard-swish": hard_swish,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "softmax": softmax,
    "strided_slice": strided_slice,
} | dict.fromkeys(_ELTWISE_TYPES, eltwise) | {
    f"reduction_{name}": reduction for name in REDUCTIONS
} | activation_ops.OPS | aten_ops.OPS | detection_ops.OPS | resize_ops.OPS  # fmt: skip
"""Every plain op type and its function."""
