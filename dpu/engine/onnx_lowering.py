"""From int8 ops to a float32 ONNX graph that carries integers, exactly.

Tensors of -fix ops travel as their integers q, tensors of plain ops as real
numbers that are multiples of 2**-p. A convolution's weights carry the output
shift, so its result is ``x = acc / 2**s``. Rounding half up is written as
``Round(x + 2**-(s+1))``: x is a multiple of 2**-s, so the added half step turns
Round's ties to even into halves upwards, and runtimes fuse Round and Clip into
the convolution. All partial sums are multiples of 2**-(s+1); where their
magnitude stays below 2**24 such steps, float32 is exact in any order of
summation. `precision` proves that per layer. Where only the accumulator itself
fits, ``Floor(x + 0.5)`` is used; where it does not, input channels are split
into groups that fit, and float64 adds the groups (exact to 2**53).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tutelage.core.fixed_point import (
    EXACT_FLOAT32,
    GUARD_BITS,
    INT8_BOUND,
    INT8_MAX,
    INT8_MIN,
    LEAKY_SHIFT,
    LEAKY_SLOPE,
    MAX_SHIFT,
    Array,
    accumulator_bound,
    average_bound,
    integer_range,
    integers_of,
    is_leaky_slope,
    pool_reciprocal,
    relu6_highest,
)
from tutelage.dpu.engine.program import Program
from tutelage.dpu.ops import cpu_ops, fix_ops, resize_ops
from tutelage.dpu.ops.factors import pool_window, scale_of
from tutelage.dpu.ops.shapes import CONVOLUTIONS
from tutelage.dpu.ops.sliding_window import Window, transposed_window_of, window_of
from tutelage.dpu.xmodel.graph import Op

OPSET = 17

_MOVES = {
    "upload",
    "download",
    "identity",
    "reshape",
    "flatten",
    "squeeze",
    "transpose",
}
"""Plain types that always carry the values of their input on; see also `_moves`."""


@dataclass(frozen=True)
class Grid:
    """What is known of a tensor: multiples of 2**-point, at most `bound` of them in magnitude."""

    point: int
    bound: int


def precision(magnitude: int, rounds: bool = True) -> str:
    """How a sum of at most `magnitude` steps is computed: "round", "floor" or "wide"."""
    if 2 * magnitude + 1 < EXACT_FLOAT32:
        return "round"
    half_steps = 1 << 16 if rounds else 0
    return "floor" if magnitude + half_steps < EXACT_FLOAT32 else "wide"


def weight_array(program: Program, op: Op, arg: str = "weights") -> Array | None:
    """The constant input `arg` of an op, or None where it is computed or missing."""
    if not op.get_input_num(arg):
        return None
    return program.constants.get(op.get_input_op(arg).get_name())


def analyse(program: Program, trace: bool = False) -> dict[str, Grid]:
    """The ops that can be lowered exactly, with what is known of their outputs.

    With `trace` every tensor is asked for, and none may be left out by joining ops.
    """
    grids: dict[str, Grid] = {}
    joined = set() if trace else _scaled_pools(program)
    known = {op.get_name(): _declared(op) for op in program.inputs}
    for op in program.steps:
        known[op.get_name()] = _declared(op)
        sources = [s for ops in op.get_input_ops().values() for s in ops]
        moving = [s for s in sources if s.get_name() not in program.constants]
        if op.get_type() in program.plugins or not program.keeps_batch(op):
            continue
        inputs = [grids.get(s.get_name()) or known.get(s.get_name()) for s in moving]
        whole = len(moving) == op.get_input_num("input") or op.get_name() in joined
        if None in inputs or not moving or not (whole or op.get_type() == "matmul"):
            continue
        places = [g for g in inputs if g is not None]
        if op.get_name() in joined:
            grid = _scaled_pool(op, places[0])
        else:
            grid = _grid(program, op, places)
        if grid is not None:
            grids[op.get_name()] = grid
    return grids


def _scaled_pools(program: Program) -> set[str]:
    """The average pools with the DPU's factor, and the `mul` ops that give it to them.

    Both become one exact sum times ``m / 2**n``, and the pool's own value, a mean, is nowhere; so
    none of them may be an output, and only a `fix` may read the product.
    """
    found: set[str] = set()
    for op in program.steps:
        scale = scale_of(op) if op.get_type() == "avgpool2d" else None
        if scale is None or op in program.outputs or scale in program.outputs:
            continue
        if all(_rounds(reader) for reader in scale.get_fanout_ops()):
            found |= {op.get_name(), scale.get_name()}
    return found


def _scaled_pool(op: Op, x: Grid) -> Grid | None:
    if op.get_type() == "mul":
        return x
    window = pool_window(op)
    _, shift = pool_reciprocal(window.kernel_w, window.kernel_h)
    bound = average_bound(window.kernel_w, window.kernel_h, x.bound)
    return _exact(x.point + shift, bound) if _has_pixels(window) else None


def _rounds(op: Op) -> bool:
    """Whether the op is a `fix` that rounds as the DPU does."""
    if op.get_type() != "fix" or not cpu_ops.attr(op, "if_signed", True):
        return False
    return bool(cpu_ops.attr(op, "round_mode", "DPU_ROUND") == "DPU_ROUND")


def _declared(op: Op) -> Grid | None:
    """The grid that the file itself states: int8 tensors and fix ops."""
    tensor = op.get_output_tensor()
    if tensor.is_int8 and tensor.has_attr("fix_point"):
        return Grid(int(tensor.get_attr("fix_point")), INT8_BOUND)
    if op.get_type() == "fix":
        return Grid(int(op.get_attr("fix_point")), 1 << (int(op.get_attr("bit_width")) - 1))
    return None


def _grid(program: Program, op: Op, inputs: list[Grid]) -> Grid | None:
    """The grid of one op's output, or None where the op is left to the reference functions."""
    kind, declared = op.get_type(), _declared(op)
    x = inputs[0]
    if kind.endswith("-fix") or kind in ("upload", "download"):
        return declared if _fix_lowers(program, op, inputs) else None
    if kind == "fix":
        return declared if _rounds(op) and 2 * x.bound + 1 < EXACT_FLOAT32 else None
    if kind in CONVOLUTIONS or kind == "matmul":
        return _plain_convolution(program, op, x) if _takes_constants(program, op) else None
    if kind in ("relu", "maxpool2d") or _moves(op):
        fits = kind != "maxpool2d" or _has_pixels(pool_window(op))
        return x if fits and op.get_output_tensor().ndim > 1 else None
    if kind == "reduction_max":
        return x
    if kind == "relu6":
        return x if x.point >= 0 and op.get_output_tensor().ndim > 1 else None  # 6 is on the grid
    if kind == "leaky-relu":
        leaky = is_leaky_slope(op.get_attr("alpha"))
        return _exact(x.point + LEAKY_SHIFT, x.bound << LEAKY_SHIFT) if leaky else None
    if kind in ("concat", "add"):
        point = max(g.point for g in inputs)
        bounds = [g.bound << (point - g.point) for g in inputs]
        return _exact(point, sum(bounds) if kind == "add" else max(bounds))
    return None


def _exact(point: int, bound: int) -> Grid | None:
    return Grid(point, bound) if bound < EXACT_FLOAT32 else None


def _moves(op: Op) -> bool:
    """Whether the op only carries values of its input on, in a way that ONNX has an op for."""
    kind = op.get_type().removesuffix("-fix")
    if kind in ("upsample", "resize"):
        return resize_ops.whole_factors(op) is not None
    if kind == "pixel-shuffle":
        return bool(op.get_attr("upscale"))
    return kind in _MOVES or kind in ("tile", "gstiling", "downsample")


def _takes_constants(program: Program, op: Op) -> bool:
    """Whether a convolution or matmul is of the kind that ONNX has, with constant weights."""
    return _is_dense(program, op) if op.get_type() == "matmul" else _one_kernel_each(op)


def _one_kernel_each(op: Op) -> bool:
    """Whether a transposed depthwise convolution has one kernel per channel, as ONNX's has."""
    if not op.get_type().startswith("transposed-depthwise"):
        return True
    weights, channels = (op.get_input_tensor(name, 0).dims for name in ("weights", "input"))
    return math.prod(weights) == weights[1] * weights[2] * channels[3]


def _is_dense(program: Program, op: Op) -> bool:
    """Whether a matmul is a dense layer: rows of its input times a constant matrix."""
    first, second = op.get_input_ops_by_name("input")
    constant = program.constants.get(second.get_name())
    rows = first.get_name() not in program.constants and not cpu_ops.attr(op, "transpose_a", False)
    return rows and constant is not None and constant.ndim == 2


def _dense_weights(program: Program, op: Op) -> Array:
    """The constant matrix of a dense layer, (outputs, inputs)."""
    matrix = program.constants[op.get_input_op("input", 1).get_name()]
    return matrix if cpu_ops.attr(op, "transpose_b", False) else matrix.T


def _plain_convolution(program: Program, op: Op, x: Grid) -> Grid | None:
    """The grid of a convolution's or a dense layer's sums, from the grids of its constants."""
    dense = op.get_type() == "matmul"
    fix = op.get_input_op("input", 1) if dense else op.get_input_op("weights")
    weights = _dense_weights(program, op) if dense else weight_array(program, op)
    grid = _declared(fix)
    if weights is None or grid is None:
        return None
    point, bias = x.point + grid.point, None
    if op.get_input_num("bias"):
        bias_grid = _declared(op.get_input_op("bias"))
        bias = weight_array(program, op, "bias")
        if bias is None or bias_grid is None:
            return None
        point = max(point, bias_grid.point)
        bias = integers_of(bias, point).astype(np.int64)
    steps = integers_of(weights, grid.point).astype(np.int64)
    if "depthwise" in op.get_type():
        steps = _depthwise_outputs_first(steps, op)
    bound = int(accumulator_bound(steps << (point - x.point - grid.point), bias, x.bound))
    return _exact(point, bound)


def _depthwise_outputs_first(weights: Array, op: Op) -> Array:
    """(multiplier, H, W, C) as (C * multiplier, H, W, 1)."""
    weights = fix_ops.depthwise_weights(weights, op.get_input_tensor("input", 0).dims[3])
    return weights.transpose(3, 0, 1, 2).reshape(-1, *weights.shape[1:3], 1)


def _fix_lowers(program: Program, op: Op, inputs: list[Grid]) -> bool:
    kind = op.get_type().removesuffix("-fix")
    out = fix_ops.fix_point(op)
    same = all(g.point == out for g in inputs)
    if kind in CONVOLUTIONS or kind == "inner-product":
        plain = fix_ops.nonlinear(op) in ("NONE", "RELU", "RELU6") and _one_kernel_each(op)
        if kind == "conv2d" and not _has_pixels(pool_window(op)):
            return False
        return plain and weight_array(program, op) is not None
    if kind == "pool":
        return _pool_lowers(op, same)
    if kind == "eltwise":
        plain = fix_ops.nonlinear(op) in ("NONE", "RELU", "RELU6")
        return plain and (fix_ops.eltwise_type(op) == "ADD" or len(inputs) == 2)
    if kind in ("concat", "relu", "relu6", "reduction_max") or _moves(op):
        return same and op.get_output_tensor().ndim > 1
    return False


def _pool_lowers(op: Op, same: bool) -> bool:
    """Whether a pool's sums stay exact; `same` where its fix points are one."""
    window = pool_window(op)
    if fix_ops.nonlinear(op) not in ("NONE", "RELU", "RELU6") or not _has_pixels(window):
        return False
    if fix_ops.pool_type(op) == "MAX":
        return same
    _, shift, how = _average(op, window)
    return how != "wide" and (how == "round" or shift <= MAX_SHIFT + 1)


def _average(op: Op, window: Window) -> tuple[int, int, str]:
    """Numerator and shift from an average pool's sum to its output, and how it is rounded."""
    numerator, shift = pool_reciprocal(window.kernel_w, window.kernel_h)
    shift += fix_ops.input_fix_point(op) - fix_ops.fix_point(op)
    return numerator, shift, precision(average_bound(window.kernel_w, window.kernel_h))


def _has_pixels(window: Window) -> bool:
    """Whether no window can lie in the padding alone, which the runtimes' pools do not take."""
    across = (window.kernel_w - 1) * window.dilation_w
    down = (window.kernel_h - 1) * window.dilation_h
    return max(window.pad_left, window.pad_right) <= across and (
        max(window.pad_top, window.pad_bottom) <= down
    )


class Lowering:
    """Builds the ONNX graph of one stage.

    Parameters
    ----------
    program : where constants come from
    steps : the ops to lower, in order
    reads, writes : the graph's inputs and outputs; int8 NHWC arrays for
        fixed-point tensors, float32 for others

    Attributes
    ----------
    wide_ops : names of the ops that needed float64
    """

    def __init__(
        self, program: Program, grids: dict[str, Grid],
        steps: list[Op], reads: list[Op], writes: list[Op],
    ) -> None:  # fmt: skip
        self.program, self.grids = program, grids
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.wide_ops: list[str] = []
        self._values: dict[tuple[str, bool], str] = {}
        self._inputs = [self._input(op) for op in reads]
        for op in steps:
            kind = op.get_type().removesuffix("-fix")
            result, channels_first = _EMITTERS[kind](self, op)
            self._values[op.get_name(), channels_first] = result
        self._outputs = [self._output(op) for op in writes]

    def model(self) -> bytes:
        """The serialized ONNX model; the batch size is free."""
        graph = helper.make_graph(
            self.nodes, "stage", self._inputs, self._outputs, initializer=self.constants
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8)
        return bytes(model.SerializeToString())

    def node(self, kind: str, inputs: list[str], **attrs: Any) -> str:
        """Add a node; returns the name of its output."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attrs))
        return name

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        """Add a constant; returns its name."""
        name = f"c{len(self.constants)}"
        values = np.ascontiguousarray(array, dtype).reshape(np.shape(array))
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def value(self, op: Op, channels_first: bool | None = None) -> str:
        """The name of an op's value, in NCHW or in the file's own order."""
        name, rank = op.get_name(), op.get_output_tensor().ndim
        if channels_first is None or rank != 4:
            channels_first = rank == 4
        if (name, channels_first) not in self._values:
            perm = [0, 3, 1, 2] if channels_first else [0, 2, 3, 1]
            other = self._values[name, not channels_first]
            self._values[name, channels_first] = self.node("Transpose", [other], perm=perm)
        return self._values[name, channels_first]

    def x(self, op: Op, index: int = 0, channels_first: bool | None = None) -> str:
        """The name of an op's input."""
        return self.value(op.get_input_op("input", index), channels_first)

    def finish(self, x: str, how: str, low: int, high: int, dtype: Any = np.float32) -> str:
        """Round (the half step is in `x` already) and saturate: `quantise_int8` in ONNX."""
        rounded = self.node("Round" if how == "round" else "Floor", [x])
        limits = [self.constant(limit, dtype) for limit in (low, high)]
        return self.node("Clip", [rounded, *limits])

    @staticmethod
    def half(how: str, shift: int) -> float:
        """What is added before rounding a multiple of 2**-shift."""
        if how == "floor":
            return 0.5
        return 2.0 ** -(shift + 1) if shift > 0 else 0.0

    def _input(self, op: Op) -> Any:
        tensor = op.get_output_tensor()
        fixed = tensor.is_int8
        kind, name = (TensorProto.INT8 if fixed else TensorProto.FLOAT), f"i_{len(self._values)}"
        value = self.node("Cast", [name], to=TensorProto.FLOAT) if fixed else name
        self._values[op.get_name(), False] = value
        return helper.make_tensor_value_info(name, kind, ["N", *tensor.dims[1:]])

    def _output(self, op: Op) -> Any:
        tensor = op.get_output_tensor()
        fixed = tensor.is_int8
        kind = TensorProto.INT8 if fixed else TensorProto.FLOAT
        value = self.value(op, False)
        value = self.node("Cast", [value], to=kind) if fixed else self.node("Identity", [value])
        return helper.make_tensor_value_info(value, kind, ["N", *tensor.dims[1:]])


def _convolution(low: Lowering, op: Op) -> tuple[str, bool]:
    source = op.get_input_op("input").get_output_tensor()
    kind = op.get_type().removesuffix("-fix")
    x = low.x(op)
    transposed = kind.startswith("transposed")
    place = transposed_window_of if transposed else window_of
    window = place(op.get_attrs(), source.dims[1], source.dims[2])
    weights = weight_array(low.program, op)
    assert weights is not None
    attrs: dict[str, Any] = {"kernel_shape": [window.kernel_h, window.kernel_w]}
    attrs["dilations"] = [window.dilation_h, window.dilation_w]
    if transposed:
        left, right, top, bottom = op.get_attr("pad") if op.has_attr("pad") else [0, 0, 0, 0]
        attrs |= {
            "strides": list(reversed(op.get_attr("stride"))),
            "pads": [top, left, bottom, right],
        }
        weights = weights[:, ::-1, ::-1]
    else:
        x, placed = _placed(low, x, window, source.dims)
        attrs |= placed
    order = (0, 3, 1, 2)
    if "depthwise" in kind:
        weights = _depthwise_outputs_first(weights, op)
        attrs["group"] = source.dims[3]
    elif transposed:
        order = (3, 0, 1, 2)
    else:
        attrs["group"] = source.dims[3] // weights.shape[3]
    onnx_kind = "ConvTranspose" if transposed else "Conv"
    if op.get_type().endswith("-fix"):
        return _fixed_convolution(low, op, x, weights, order, onnx_kind, attrs), True
    inputs = [x, low.constant(weights.transpose(order))]
    bias = weight_array(low.program, op, "bias")
    if bias is not None:
        inputs.append(low.constant(bias))
    return low.node(onnx_kind, inputs, **attrs), True


def _placed(low: Lowering, x: str, window: Window, dims: list[int]) -> tuple[str, dict[str, Any]]:
    """The input that a window needs, and ONNX's strides and pads for it.

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
                ends = [low.constant([v], np.int64) for v in (0, end, axis + 1)]
                x = low.node("Slice", [x, *ends])
            stride, last = 1, max(0, end - dims[axis])
        strides.append(stride)
        before.append(first)
        after.append(last)
    return x, {"strides": strides, "pads": [*before, *after]}


def _fixed_convolution(
    low: Lowering, op: Op, x: str, weights: Array, order: Any, kind: str, attrs: dict[str, Any]
) -> str:
    weights, bias, point = _accumulator(low, op, weights)
    shift = point - fix_ops.fix_point(op)
    limits = fix_ops.limits(fix_ops.nonlinear(op))
    how = precision(int(accumulator_bound(weights, bias))) if shift <= MAX_SHIFT + 1 else "wide"
    if how == "wide":
        low.wide_ops.append(op.get_name())
        return _wide(low, x, weights, bias, order, kind, attrs, shift, limits)
    scale = 2.0**-shift
    values = [weights.transpose(order) * scale, bias * scale + low.half(how, shift)]
    inputs = [x, *(low.constant(v) for v in values)]
    return low.finish(low.node(kind, inputs, **attrs), how, *limits)


def _accumulator(low: Lowering, op: Op, weights: Array) -> tuple[Array, Array, int]:
    """Weights and bias (int64) in steps of the accumulator, and the fix point of these steps.

    Where a bias is one bit finer than a product, so are the steps (`fix_ops.doubled_bias`).
    """
    point = fix_ops.input_fix_point(op) + fix_ops.input_fix_point(op, "weights")
    given = weight_array(low.program, op, "bias")
    if given is None:
        return weights.astype(np.int64), np.zeros(len(weights), np.int64), point
    bias = fix_ops.doubled_bias(op, given, point)
    if np.any(bias & 1):
        return weights.astype(np.int64) << 1, bias, point + 1
    return weights.astype(np.int64), bias >> 1, point


def _wide(
    low: Lowering, x: str, weights: Array, bias: Array, order: Any, kind: str,
    attrs: dict[str, Any], shift: int, limits: tuple[int, int],
) -> str:  # fmt: skip
    """The integer path: channel groups exact in float32, their sum and rounding in float64."""
    depth = weights.shape[3]
    worst = max(1, int(np.abs(weights.astype(np.int64)).sum((1, 2)).max()) * INT8_BOUND)
    step = max(1, (EXACT_FLOAT32 - 1) // worst) if attrs.get("group", 1) == 1 else depth
    total = ""
    for start in range(0, depth, step):
        stop = min(start + step, depth)
        part = x
        if (start, stop) != (0, depth):
            ends = [low.constant([v], np.int64) for v in (start, stop, 1)]
            part = low.node("Slice", [x, *ends])
        w = low.constant(weights[..., start:stop].transpose(order))
        result = low.node("Cast", [low.node(kind, [part, w], **attrs)], to=TensorProto.DOUBLE)
        total = low.node("Add", [total, result]) if total else result
    total = low.node("Add", [total, low.constant(bias.reshape(1, -1, 1, 1), np.float64)])
    total = low.node("Mul", [total, low.constant(2.0**-shift, np.float64)])
    if shift > 0:
        total = low.node("Add", [total, low.constant(0.5, np.float64)])
    clipped = low.finish(total, "floor", *limits, dtype=np.float64)
    return low.node("Cast", [clipped], to=TensorProto.FLOAT)


def _inner_product(low: Lowering, op: Op) -> tuple[str, bool]:
    weights = weight_array(low.program, op)
    assert weights is not None
    outputs = len(weights)
    flat = weights.reshape(outputs, 1, 1, -1)
    shape = low.constant([-1, flat.shape[3], 1, 1], np.int64)
    x = low.node("Reshape", [low.x(op, 0, False), shape])
    attrs = {"kernel_shape": [1, 1]}
    y = _fixed_convolution(low, op, x, flat, (0, 3, 1, 2), "Conv", attrs)
    dims = [-1, *op.get_output_tensor().dims[1:]]
    return low.node("Reshape", [y, low.constant(dims, np.int64)]), False


def _pool(low: Lowering, op: Op) -> tuple[str, bool]:
    dims = op.get_input_op("input").get_output_tensor().dims
    window = pool_window(op)
    x, attrs = _placed(low, low.x(op), window, dims)
    attrs["kernel_shape"] = [window.kernel_h, window.kernel_w]
    plain = op.get_type() == "avgpool2d"
    if op.get_type() == "maxpool2d" or (not plain and fix_ops.pool_type(op) == "MAX"):
        return _clipped(low, op, low.node("MaxPool", [x], **attrs)), True
    if plain:
        numerator, shift = pool_reciprocal(window.kernel_w, window.kernel_h)
        weights = np.full((dims[3], 1, window.kernel_h, window.kernel_w), numerator * 2.0**-shift)
        return low.node("Conv", [x, low.constant(weights)], group=dims[3], **attrs), True
    numerator, shift, how = _average(op, window)
    weights = np.full((dims[3], 1, window.kernel_h, window.kernel_w), numerator * 2.0**-shift)
    bias = np.full(dims[3], low.half(how, shift))
    inputs = [x, low.constant(weights), low.constant(bias)]
    total = low.node("Conv", inputs, group=dims[3], **attrs)
    return low.finish(total, how, *fix_ops.limits(fix_ops.nonlinear(op))), True


def _clipped(low: Lowering, op: Op, x: str) -> str:
    """What a nonlinearity leaves of int8 values."""
    limits = fix_ops.limits(fix_ops.nonlinear(op))
    if limits == (INT8_MIN, INT8_MAX):
        return x
    return low.node("Clip", [x, *(low.constant(limit) for limit in limits)])


def _eltwise(low: Lowering, op: Op) -> tuple[str, bool]:
    count, out = op.get_input_num("input"), fix_ops.fix_point(op)
    points = [fix_ops.input_fix_point(op, "input", i) for i in range(count)]
    if fix_ops.eltwise_type(op) == "MUL":
        shift = sum(points) - out
        total = low.node("Mul", [low.x(op, 0), low.x(op, 1)])
        total = low.node("Mul", [total, low.constant(2.0**-shift)])
    else:
        kept = min(points) + GUARD_BITS
        shift, total = min(max(points), kept) - out, ""
        for index, point in enumerate(points):
            part = low.x(op, index)
            if point > kept:
                part = low.node("Mul", [part, low.constant(2.0 ** (kept - point))])
                part, point = low.node("Floor", [part]), kept
            if point != out:
                part = low.node("Mul", [part, low.constant(2.0 ** (out - point))])
            total = low.node("Add", [total, part]) if total else part
    total = low.node("Add", [total, low.constant(low.half("round", shift))])
    limits = fix_ops.limits(fix_ops.nonlinear(op))
    return low.finish(total, "round", *limits), op.get_output_tensor().ndim == 4


def _add(low: Lowering, op: Op) -> tuple[str, bool]:
    """A plain sum."""
    total = low.x(op, 0)
    for index in range(1, op.get_input_num("input")):
        total = low.node("Add", [total, low.x(op, index)])
    return total, op.get_output_tensor().ndim == 4


def _concat(low: Lowering, op: Op) -> tuple[str, bool]:
    axis, rank = op.get_attr("axis"), op.get_output_tensor().ndim
    axis = {1: 2, 2: 3, 3: 1}[axis % 4] if rank == 4 else axis
    parts = [low.x(op, index) for index in range(op.get_input_num("input"))]
    return low.node("Concat", parts, axis=axis), rank == 4


def _reshape(low: Lowering, op: Op) -> tuple[str, bool]:
    dims = low.constant([-1, *op.get_output_tensor().dims[1:]], np.int64)
    return low.node("Reshape", [low.x(op, 0, False), dims]), False


def _transpose(low: Lowering, op: Op) -> tuple[str, bool]:
    return low.node("Transpose", [low.x(op, 0, False)], perm=op.get_attr("order")), False


def _matmul(low: Lowering, op: Op) -> tuple[str, bool]:
    """A dense layer."""
    weights = low.constant(_dense_weights(low.program, op).T)
    y = low.node("MatMul", [low.x(op, 0, False), weights])
    bias = weight_array(low.program, op, "bias")
    return y if bias is None else low.node("Add", [y, low.constant(bias)]), False


def _blocks(low: Lowering, op: Op) -> tuple[str, bool]:
    side, to_space, channels_last = resize_ops.block_of(op)
    if not to_space:
        return low.node("SpaceToDepth", [low.x(op)], blocksize=side), True
    mode = "DCR" if channels_last else "CRD"
    return low.node("DepthToSpace", [low.x(op)], blocksize=side, mode=mode), True


def _downsample(low: Lowering, op: Op) -> tuple[str, bool]:
    width, height = resize_ops.steps_of(op)
    dims = op.get_input_tensor("input", 0).dims
    ranges = ([0, 0], dims[1:3], [2, 3], [height, width])  # starts, ends, axes, steps
    return low.node("Slice", [low.x(op), *(low.constant(r, np.int64) for r in ranges)]), True


def _upsample(low: Lowering, op: Op) -> tuple[str, bool]:
    repeats = resize_ops.whole_factors(op)
    assert repeats is not None
    factors = [1.0, 1.0, *map(float, repeats)]
    attrs = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    inputs = [low.x(op), "", low.constant(factors)]
    return low.node("Resize", inputs, mode="nearest", **attrs), True


def _relu(low: Lowering, op: Op) -> tuple[str, bool]:
    first = op.get_output_tensor().ndim == 4
    if op.get_type() == "relu6-fix":
        top = min(relu6_highest(fix_ops.fix_point(op)), INT8_MAX)
        return low.node("Clip", [low.x(op), low.constant(0), low.constant(top)]), first
    if op.get_type() == "relu6":
        return low.node("Clip", [low.x(op), low.constant(0), low.constant(6)]), first
    if op.get_type() == "leaky-relu":
        return low.node("LeakyRelu", [low.x(op)], alpha=LEAKY_SLOPE), first
    return low.node("Relu", [low.x(op)]), first


def _fix(low: Lowering, op: Op) -> tuple[str, bool]:
    """A plain `fix`: scale, round, saturate, scale back."""
    source = op.get_input_op("input")
    point = int(op.get_attr("fix_point"))
    known = low.grids.get(source.get_name()) or _declared(source)
    assert known is not None
    x = low.node("Mul", [low.x(op), low.constant(2.0**point)])
    x = low.node("Add", [x, low.constant(low.half("round", known.point - point))])
    x = low.finish(x, "round", *integer_range(int(op.get_attr("bit_width")), True))
    first = op.get_output_tensor().ndim == 4
    return low.node("Mul", [x, low.constant(2.0**-point)]), first


def _reduction_max(low: Lowering, op: Op) -> tuple[str, bool]:
    keep = int(bool(cpu_ops.attr(op, "keep_dims", False)))
    axes = [int(axis) for axis in op.get_attr("axis")]
    return low.node("ReduceMax", [low.x(op, 0, False)], axes=axes, keepdims=keep), False


def _identity(low: Lowering, op: Op) -> tuple[str, bool]:
    return low.x(op), op.get_output_tensor().ndim == 4


_EMITTERS = {
    "conv2d": _convolution,
    "depthwise-conv2d": _convolution,
    "transposed-conv2d": _convolution,
    "transposed-depthwise-conv2d": _convolution,
    "matmul": _matmul,
    "inner-product": _inner_product,
    "pool": _pool,
    "maxpool2d": _pool,
    "avgpool2d": _pool,
    "mul": _identity,  # of an average pool's factor, which the pool has already
    "add": _add,
    "eltwise": _eltwise,
    "concat": _concat,
    "reshape": _reshape,
    "flatten": _reshape,
    "squeeze": _reshape,
    "transpose": _transpose,
    "upsample": _upsample,
    "resize": _upsample,
    "downsample": _downsample,
    "tile": _blocks,
    "gstiling": _blocks,
    "pixel-shuffle": _blocks,
    "relu": _relu,
    "relu6": _relu,
    "leaky-relu": _relu,
    "fix": _fix,
    "reduction_max": _reduction_max,
    "identity": _identity,
    "upload": _identity,
    "download": _identity,
}
