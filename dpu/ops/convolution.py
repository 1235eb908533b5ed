"""Convolutions: plain and depthwise, optionally transposed.

Sums of real products are computed in float64: operands on power-of-two grids, as in a
quantised .xmodel, give exact results up to 2**53. Weights are OHWI, for depthwise convolutions
(multiplier, H, W, C). Definitions: XIR's built-in ops (Apache-2.0).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.errors import UnsupportedError
from tutelage.core.fingerprint import B4096, DpuArray
from tutelage.core.fixed_point import Array, Inputs
from tutelage.dpu.ops.attributes import attr
from tutelage.dpu.ops.definition import FLOAT, KERNEL, OPTIONAL, PADS, REQUIRED, Definition
from tutelage.dpu.ops.int8 import finish, fix_point, input_fix_point, nonlinear, only_clips
from tutelage.dpu.ops.limits import (
    MAX_TRANSPOSED_STRIDE,
    alu_limit,
    array_limit,
    bank_limit,
    channels_limit,
)
from tutelage.dpu.ops.lowering import Grid, has_pixels, parameter, placed
from tutelage.dpu.ops.products import compile_convolution, fixed_convolution, sum_grid
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.ops.registry import OpType, register
from tutelage.dpu.ops.sliding_window import (
    Window,
    convolve,
    convolve_depthwise,
    insert_zeros,
    transposed_window_of,
    window_of,
)
from tutelage.dpu.ops.work import (
    Operation,
    Shape,
    depthwise_per_cycle,
    padded,
    pool_work,
    value_work,
)

if TYPE_CHECKING:
    from tutelage.dpu.ops.compiling import Compilation, Sink
    from tutelage.dpu.ops.engine_layers import EngineLayer
    from tutelage.dpu.ops.lowering import OnnxGraph

_HEIGHT_WIDTH_FIRST = (0, 3, 1, 2)  # OHWI to OIHW


class Convolution(OpType):
    """Convolution: sum of ``x * w`` over taps and input channels, plus a bias."""

    definition: Definition | None = Definition(
        (("input", REQUIRED, FLOAT), ("weights", REQUIRED, FLOAT), ("bias", OPTIONAL, FLOAT)),
        (*KERNEL, ("dilation", OPTIONAL, "int32_vec_value", [1, 1], 2), *PADS),
    )
    on_dpu = on_array = True
    fuses: tuple[str, ...] = ("RELU", "RELU6", "LEAKYRELU")
    family = "conv"

    sums = staticmethod(convolve)
    place = staticmethod(window_of)

    def __init__(self, name: str) -> None:
        super().__init__(name, self.compute, self.compute_int8)

    # -- reference ---------------------------------------------------------------------------

    def compute(self, op: Any, inputs: Inputs) -> Array:
        """Return ``sum(x * w) + bias``, float64 (N, H, W, C)."""
        x, weights = self._operands(op, inputs, np.float64)
        out = np.empty((x.shape[0], *op.get_output_tensor().dims[1:]), np.float64)
        for rows, acc in self._accumulated(op, inputs, x, weights):
            out[:, rows] = acc
        if inputs.get("bias"):
            out += inputs["bias"][0]
        return out

    def compute_int8(self, op: Any, inputs: Inputs) -> Array:
        """Return `int8.finish` of ``acc = sum(q_in * q_w)`` (as measured), int8 (N, H, W, C)."""
        x, weights = self._operands(op, inputs, np.int64)
        out = np.empty((x.shape[0], *op.get_output_tensor().dims[1:]), np.int8)
        point = input_fix_point(op) + input_fix_point(op, "weights")
        for rows, acc in self._accumulated(op, inputs, x, weights):
            out[:, rows] = finish(acc, op, inputs, point)
        return out

    def _operands(self, op: Any, inputs: Inputs, dtype: Any) -> tuple[Array, Array]:
        x = inputs["input"][0]
        return self.spread(op, x), self.arranged(inputs["weights"][0].astype(dtype), x.shape[3])

    def _accumulated(self, op: Any, inputs: Inputs, x: Array, weights: Array) -> Any:
        """Yield the sums in blocks of rows."""
        window = self.place(op.get_attrs(), *inputs["input"][0].shape[1:3])
        padded_x, dims = window.pad(x), op.get_output_tensor().dims
        for rows in window.row_blocks(x.shape[0] * dims[2] * dims[3]):
            yield rows, self.sums(padded_x, weights, window, rows)

    def spread(self, op: Any, x: Array) -> Array:
        """Return the array that the window slides over."""
        return x

    def arranged(self, weights: Array, channels: int) -> Array:
        """Return the weights in the layout that `sums` requires."""
        return weights

    # -- XIR ---------------------------------------------------------------------------------

    def window(self, op: Any) -> Window:
        return self.place(op.get_attrs(), *op.get_input_tensor("input", 0).dims[1:3])

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        window = self.place(op.get_attrs(), dims[1], dims[2])
        weights = op.get_input_tensor("weights", 0).dims
        _, height, width, _ = weights
        if (height, width) != (window.kernel_h, window.kernel_w):
            raise UnsupportedError(
                f"op {op.get_name()!r}: the weights do not have the kernel's size"
            )
        outputs = self.outputs(weights, dims[3])
        if not outputs:
            raise UnsupportedError(f"op {op.get_name()!r}: the weights do not fit the channels")
        return [dims[0], window.out_h, window.out_w, outputs]

    def outputs(self, weights: list[int], channels: int) -> int:
        """Return the number of output channels for weights of these dims; 0 if they do not fit."""
        outputs, _, _, inputs = weights
        return 0 if channels % inputs or outputs % (channels // inputs) else outputs

    def groups(self, weights: Array, channels: int) -> int:
        """Return the number of groups of input channels."""
        return channels // int(weights.shape[3])

    # -- the fast engine ---------------------------------------------------------------------

    def grid(self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]) -> Grid | None:
        weights = parameter(constants, op)
        if weights is None or not self.one_kernel_each(op):
            return None
        steps = (op.get_input_op("weights"), self.outputs_first(weights, op))
        return sum_grid(op, inputs[0], steps, constants)

    def int8_is_exact(
        self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]
    ) -> bool:
        known = only_clips(op) and self.one_kernel_each(op) and self.sees_pixels(op)
        return known and parameter(constants, op) is not None

    def sees_pixels(self, op: Any) -> bool:
        """Return whether ONNX's convolution supports the window."""
        return has_pixels(self.window(op))

    def one_kernel_each(self, op: Any) -> bool:
        """Return whether ONNX supports this number of kernels per channel."""
        return True

    def outputs_first(self, weights: Array, op: Any) -> Array:
        """Return the weights with the output channels first."""
        return weights

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        weights = parameter(graph.parameters, op)
        assert weights is not None
        x, attrs = self.onnx_window(op, graph, graph.x(op))
        weights, order, group = self.onnx_weights(weights, op)
        if group:
            attrs["group"] = group
        if op.get_type() != self.name:
            return fixed_convolution(op, graph, x, weights, order, self.onnx_kind, attrs), True
        inputs = [x, graph.constant(weights.transpose(order))]
        bias = parameter(graph.parameters, op, "bias")
        if bias is not None:
            inputs.append(graph.constant(bias))
        return graph.node(self.onnx_kind, inputs, **attrs), True

    onnx_kind = "Conv"

    def onnx_window(self, op: Any, graph: OnnxGraph, x: str) -> tuple[str, dict[str, Any]]:
        """Return the input's name and ONNX's attributes of the window."""
        window = self.window(op)
        x, attrs = placed(graph, x, window, op.get_input_tensor("input", 0).dims)
        return x, attrs | _onnx_kernel(window)

    def onnx_weights(self, weights: Array, op: Any) -> tuple[Array, tuple[int, ...], int]:
        """Return the weights, the axis order that ONNX requires, and the number of groups."""
        channels = op.get_input_tensor("input", 0).dims[3]
        return weights, _HEIGHT_WIDTH_FIRST, self.groups(weights, channels)

    # -- the DPU -----------------------------------------------------------------------------

    def limit(self, op: Any) -> str:
        return array_limit(op) or channels_limit(op) or bank_limit(op)

    def compile(self, op: Any, sink: Sink, to: Compilation) -> Any:
        return compile_convolution(
            op, sink, to, op.get_name(), [op.get_input_op("input"), op.get_input_op("weights")],
            to.integers(op.get_input_op("weights"), "weights"),
            stride=op.get_attr("stride"), pad=self.padding(op),
            dilation=attr(op, "dilation", [1, 1]), kind=self.name,
        )  # fmt: skip

    def engine_layers(self, op: Any, constants: Mapping[str, Array]) -> Sequence[EngineLayer]:
        from tutelage.dpu.ops.engine_layers import ConvLayer

        window, channels = self.window(op), op.get_input_tensor("input", 0).dims[3]
        weights = self.grouped(_weights(op, constants), channels)
        layer = ConvLayer(
            op.get_name(), (op.get_input_op("input").get_name(),),
            (window.kernel_h, window.kernel_w), (window.stride_h, window.stride_w),
            (window.pad_top, window.pad_left), (window.dilation_h, window.dilation_w),
            (window.out_h, window.out_w), weights=weights, **_ends(op, constants, len(weights)),
        )  # fmt: skip
        return [layer]

    def grouped(self, weights: Array, channels: int) -> Array:
        """Return weights for all input channels, with zeros for those of other groups."""
        outputs, height, width, inputs = weights.shape
        groups = channels // inputs
        full = np.zeros((groups, outputs // groups, height, width, groups, inputs), np.int8)
        parts = weights.reshape(groups, outputs // groups, height, width, inputs)
        for group, part in enumerate(parts):
            full[group, ..., group, :] = part
        return full.reshape(outputs, height, width, channels)

    # -- layers ------------------------------------------------------------------------------

    def macs(self, op: Any, taps: Sequence[int] | None) -> int:
        return 0 if taps is None else self.places(op) * math.prod(taps)

    def places(self, op: Any) -> int:
        """Return the number of pixels that the kernel is applied to."""
        return math.prod(op.get_output_tensor().dims[1:-1])

    def is_dense(self, op: Any, weights: Any) -> bool:
        return True

    def depth(self, op: Any, taps: Sequence[int]) -> int:
        return taps[3]

    def work(self, operation: Operation, inputs: Sequence[Shape], array: DpuArray) -> int:
        narrow = _narrow(operation, array)
        return conv_work(*operation.output, *operation.kernel, operation.depth, narrow, array)

    def cycles(self, operation: Operation, inputs: Sequence[Shape], array: DpuArray) -> float:
        return self.work(operation, inputs, array) / array.operations

    def bank_words(self, operation: Operation, array: DpuArray) -> int:
        narrow = _narrow(operation, array)
        lanes = _input_lanes(*operation.kernel, operation.depth, narrow, array)
        return lanes // array.channels


def _weights(op: Any, constants: Mapping[str, Array]) -> Array:
    weights = parameter(constants, op)
    if weights is None:
        raise Refusal("the weights are not constant")
    return weights


def _ends(op: Any, constants: Mapping[str, Array], outputs: int) -> dict[str, Any]:
    """Return bias, shifts and activation of a convolution as fields of CONV and ALU."""
    from tutelage.dpu.ops.engine_layers import ACTIVATIONS

    activation = nonlinear(op)
    if activation not in ACTIVATIONS:
        raise Refusal(f"the DPU cannot fuse {activation}")
    point = input_fix_point(op) + input_fix_point(op, "weights")
    bias, shift_bias = parameter(constants, op, "bias"), 0
    if bias is None:
        bias = np.zeros(outputs, np.int8)
    else:
        shift_bias = max(0, point - input_fix_point(op, "bias") + 1)
    return {
        "bias": bias, "shift_cut": point - fix_point(op), "shift_bias": shift_bias,
        "act_type": ACTIVATIONS[activation],
    }  # fmt: skip


def _narrow(operation: Operation, array: DpuArray) -> bool:
    """Return whether kernel width and input channels share lanes; by rule if unknown."""
    if operation.augmented is None:
        return operation.depth <= augmented_channels(array)
    return operation.augmented


def _input_lanes(k_h: int, k_w: int, in_c: int, augmented: bool, array: DpuArray) -> int:
    """Return the number of weights of one output channel, idle lanes included."""
    lanes = array.channels
    return k_h * (padded(k_w * in_c, lanes) if augmented else k_w * padded(in_c, lanes))


def _onnx_kernel(window: Window) -> dict[str, Any]:
    return {
        "kernel_shape": [window.kernel_h, window.kernel_w],
        "dilations": [window.dilation_h, window.dilation_w],
    }


class Depthwise(Convolution):
    """Depthwise convolution: one kernel per channel."""

    on_array = False
    fuses = ("RELU", "RELU6")
    sums = staticmethod(convolve_depthwise)

    def arranged(self, weights: Array, channels: int) -> Array:
        """Return weights as (multiplier, H, W, C), even if the file has (C, H, W, 1)."""
        if weights.shape[3] != channels and weights.shape[0] == channels and weights.shape[3] == 1:
            return np.ascontiguousarray(weights.transpose(3, 1, 2, 0))
        return weights

    def outputs(self, weights: list[int], channels: int) -> int:
        outputs, _, _, inputs = weights
        if inputs == 1 != channels and outputs % channels == 0:
            return outputs
        return outputs * inputs if inputs == channels else 0

    def groups(self, weights: Array, channels: int) -> int:
        return channels

    def sees_pixels(self, op: Any) -> bool:
        return True

    def outputs_first(self, weights: Array, op: Any) -> Array:
        """Return weights (multiplier, H, W, C) as (C * multiplier, H, W, 1)."""
        weights = self.arranged(weights, op.get_input_tensor("input", 0).dims[3])
        multiplier, height, width, channels = weights.shape
        ordered = weights.transpose(3, 0, 1, 2)
        return ordered.reshape(channels * multiplier, height, width, 1)

    def onnx_weights(self, weights: Array, op: Any) -> tuple[Array, tuple[int, ...], int]:
        channels = op.get_input_tensor("input", 0).dims[3]
        return self.outputs_first(weights, op), _HEIGHT_WIDTH_FIRST, channels

    def limit(self, op: Any) -> str:
        return alu_limit(op) or channels_limit(op)

    def engine_layers(self, op: Any, constants: Mapping[str, Array]) -> Sequence[EngineLayer]:
        from tutelage.dpu.ops.engine_layers import DEPTHWISE, AluLayer

        window, channels = self.window(op), op.get_input_tensor("input", 0).dims[3]
        weights = self.arranged(_weights(op, constants), channels)
        if len(weights) != 1:
            raise Refusal(f"{len(weights)} kernels per channel; the DPU supports one")
        layer = AluLayer(
            op.get_name(), (op.get_input_op("input").get_name(),),
            (window.kernel_h, window.kernel_w), (window.stride_h, window.stride_w),
            (window.pad_top, window.pad_left), (window.dilation_h, window.dilation_w),
            (window.out_h, window.out_w), mode=DEPTHWISE, weights=weights[0],
            **_ends(op, constants, channels),
        )  # fmt: skip
        return [layer]

    def macs(self, op: Any, taps: Sequence[int] | None) -> int:
        if taps is None:
            return 0
        return self.places(op) * int(op.get_output_tensor().dims[-1]) * taps[1] * taps[2]

    def is_dense(self, op: Any, weights: Any) -> bool:
        return False

    def depth(self, op: Any, taps: Sequence[int]) -> int:
        return 1

    def work(self, operation: Operation, inputs: Sequence[Shape], array: DpuArray) -> int:
        return depthwise_work(*operation.output, *operation.kernel, array)

    def cycles(self, operation: Operation, inputs: Sequence[Shape], array: DpuArray) -> float:
        found = pool_work(*operation.output, *operation.kernel, array)
        return found / depthwise_per_cycle(array)


class Transposed(Convolution):
    """Transposed convolution: a convolution over the input with zeros between its pixels.

    The file's weights are already flipped: AMD's exporter reverses rows and columns of PyTorch's
    weights (vai_q_pytorch, xir exporter).
    """

    spreads = True
    place = staticmethod(transposed_window_of)
    onnx_kind = "ConvTranspose"

    def spread(self, op: Any, x: Array) -> Array:
        return insert_zeros(x, *reversed(op.get_attr("stride")))

    def padding(self, op: Any) -> list[int]:
        self.window(op)  # raises for pads larger than the kernel
        return list(attr(op, "pad", None) or [0, 0, 0, 0])

    def sees_pixels(self, op: Any) -> bool:
        return True

    def onnx_window(self, op: Any, graph: OnnxGraph, x: str) -> tuple[str, dict[str, Any]]:
        left, right, top, bottom = attr(op, "pad", [0, 0, 0, 0])
        strides = list(reversed(op.get_attr("stride")))
        attrs = {"strides": strides, "pads": [top, left, bottom, right]}
        return x, attrs | _onnx_kernel(self.window(op))

    def onnx_weights(self, weights: Array, op: Any) -> tuple[Array, tuple[int, ...], int]:
        return weights[:, ::-1, ::-1], (3, 0, 1, 2), 0

    def limit(self, op: Any) -> str:
        return array_limit(op, MAX_TRANSPOSED_STRIDE) or channels_limit(op)

    def engine_layers(self, op: Any, constants: Mapping[str, Array]) -> Sequence[EngineLayer]:
        (whole,) = super().engine_layers(op, constants)
        return _phases(op, whole)

    def places(self, op: Any) -> int:
        return math.prod(op.get_input_tensor("input", 0).dims[1:-1])

    def is_dense(self, op: Any, weights: Any) -> bool:
        return False

    def work(self, operation: Operation, inputs: Sequence[Shape], array: DpuArray) -> int:
        depth, stride = operation.depth, operation.stride
        return transposed_conv_work(*operation.output, *operation.kernel, depth, *stride, array)


def _phases(op: Any, whole: EngineLayer) -> list[EngineLayer]:
    """Return one convolution per phase of the stride, each with every stride-th tap."""
    from tutelage.dpu.ops.engine_layers import AluLayer, ConvLayer, phase_of, spread_taps

    assert isinstance(whole, ConvLayer | AluLayer)
    whole, (width, height) = spread_taps(whole), op.get_attr("stride")
    return [
        phase_of(whole, (row, column), (height, width))
        for row in range(min(height, whole.output[0]))
        for column in range(min(width, whole.output[1]))
    ]


class TransposedDepthwise(Depthwise, Transposed):
    """Transposed depthwise convolution: one kernel per channel."""

    definition = None
    limit = Transposed.limit

    def engine_layers(self, op: Any, constants: Mapping[str, Array]) -> Sequence[EngineLayer]:
        (whole,) = Depthwise.engine_layers(self, op, constants)
        return _phases(op, whole)

    def one_kernel_each(self, op: Any) -> bool:
        weights, channels = (op.get_input_tensor(name, 0).dims for name in ("weights", "input"))
        return math.prod(weights) == weights[1] * weights[2] * channels[3]

    def onnx_weights(self, weights: Array, op: Any) -> tuple[Array, tuple[int, ...], int]:
        return super().onnx_weights(weights[:, ::-1, ::-1], op)


_TYPES = (
    Convolution("conv2d"),
    Depthwise("depthwise-conv2d"),
    Transposed("transposed-conv2d"),
    TransposedDepthwise("transposed-depthwise-conv2d"),
)
register(*_TYPES)


def exported_attributes(name: str, weights: Array, channels: int) -> dict[str, int]:
    """Return the attributes that AMD's exporter gives a convolution in addition to its window.

    Parameters
    ----------
    name : the op type
    weights : weights of the op
    channels : number of input channels
    """
    kind = next(kind for kind in _TYPES if kind.name == name)
    outputs = kind.outputs(list(weights.shape), channels)
    return {"in_dim": channels, "out_dim": outputs, "group": kind.groups(weights, channels)}


def conv_work(
    out_h: int,
    out_w: int,
    out_c: int,
    k_h: int,
    k_w: int,
    in_c: int,
    augmented: bool = False,
    array: DpuArray = B4096,
) -> int:
    """Return the operations of a convolution on the array, with idle lanes (`workload_on_arch`).

    On a B4096 ``pad8(out_h) * out_w * pad16(out_c) * (2 * k_h * k_w * pad16(in_c) + 1)``; with
    channel augmentation ``k_w`` and ``in_c`` are padded together:
    ``2 * k_h * pad16(k_w * in_c) + 1``. Source: equals the attribute in AMD's compiled files. The
    height is padded to 8, not the width, which only files with non-square outputs show.
    """
    depth = _input_lanes(k_h, k_w, in_c, augmented, array)
    return padded(out_h, array.rows) * out_w * padded(out_c, array.channels) * (2 * depth + 1)


def transposed_conv_work(
    out_h: int,
    out_w: int,
    out_c: int,
    k_h: int,
    k_w: int,
    in_c: int,
    stride_h: int,
    stride_w: int,
    array: DpuArray = B4096,
) -> int:
    """Return the operations of a transposed convolution: one convolution per phase.

    Source: equals the attribute of the three in PointPillars, whose kernels are as large as their
    strides; for other kernels, rounding up to whole strides is an assumption.
    """
    phase = conv_work(
        math.ceil(out_h / stride_h),
        math.ceil(out_w / stride_w),
        out_c,
        math.ceil(k_h / stride_h),
        math.ceil(k_w / stride_w),
        in_c,
        array=array,
    )
    return stride_h * stride_w * phase


def depthwise_work(
    out_h: int, out_w: int, channels: int, k_h: int, k_w: int, array: DpuArray = B4096
) -> int:
    """Return a depthwise convolution's operations: ``pad4(h) * w * pad16(c) * (2 k_h k_w + 1)``.

    Source: equals the attribute in AMD's compiled files.
    """
    return value_work(out_h, out_w, channels, array) * (2 * k_h * k_w + 1)


def augmented_channels(array: DpuArray) -> int:
    """Return the most input channels for which channel augmentation is assumed.

    For files that do not specify it: with more, not even two kernel columns fit into the lanes.
    """
    return array.channels // 2
