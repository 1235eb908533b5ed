"""A quantised graph as ONNX with QuantizeLinear/DequantizeLinear, for CPUs and GPUs.

    model = to_onnx(to_quantised(student, "densenet"))
    onnxruntime.InferenceSession(model).run(None, {"images": images})    # NCHW float32

Scales are the fix points' powers of two. It is the student's function but for ties: ONNX rounds
halves to even, the DPU up. Where exact logits are wanted, run the .xmodel.

Bytes are unsigned with zero point 128, weights too: they are the DPU's q plus 128. x86 processors
without VNNI multiply unsigned by signed bytes and add two of the products in 16 bits (VPMADDUBSW),
where the sum saturates. With int8 weights ONNX Runtime and OpenVINO do so. With uint8 weights ONNX
Runtime's kernels (MLAS: GemmU8U8 for SSE2, AVX2, AVX-512 and NEON) widen bytes before they multiply
them, and OpenVINO's CPU plugin computes convolutions in float32. Activations are unsigned because
OpenVINO 2026.4 rounds what an int8 QuantizeLinear takes from a Concat to whole numbers, whatever
the scale, if a convolution follows.

`form` writes the same student for other runtimes: `INT8_WEIGHTS` with int8 weights, for processors
with VNNI, where they are faster (OpenVINO rounds additions that it fuses into a convolution by up
to one step differently); `FLOAT_BIAS` with zero points 0 and float32 biases, for TensorRT, which
takes nothing else; `FLOAT32` with the student's rounded parameters as float32 and activations that
nothing rounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from tutelage.core.errors import UnsupportedError
from tutelage.core.fixed_point import LEAKY_SLOPE, Array, dequantise, pool_reciprocal
from tutelage.dpu.engine.program import graph_outputs
from tutelage.dpu.ops.factors import scale_of
from tutelage.dpu.ops.fix import rounded_constant
from tutelage.dpu.ops.pooling import pool_factor
from tutelage.dpu.ops.sliding_window import window_of
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op

OPSET = 17
INPUT, OUTPUT = "images", "logits"
INT8, INT8_WEIGHTS, FLOAT_BIAS, FLOAT32 = "int8", "int8-weights", "int8-float-bias", "float32"

_PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "concat": ("Concat", {"axis": 1}),
    "add": ("Add", {}),
    "relu": ("Relu", {}),
    "leaky-relu": ("LeakyRelu", {"alpha": LEAKY_SLOPE}),
    "flatten": ("Flatten", {"axis": 1}),
}
"""ONNX's op and attributes by XIR's op type."""

_ZERO = 128
"""Zero point of unsigned bytes: q + 128 is in 0 .. 255 for each int8 q."""


def to_onnx(graph: Graph, form: str = INT8) -> bytes:
    """The serialized ONNX model of a quantised graph with one input and one output.

    Input "images" [N, C, H, W] float32, normalised; output "logits".

    Parameters
    ----------
    form : INT8, INT8_WEIGHTS, FLOAT_BIAS or FLOAT32

    Raises
    ------
    UnsupportedError
        The graph has an op that no student has, or several inputs or outputs.
    """
    outputs = graph_outputs(graph)
    inputs = [op for op in graph.toposort() if op.get_type() == "data"]
    if len(inputs) != 1 or len(outputs) != 1:
        raise UnsupportedError(f"{graph.get_name()}: one input and one output are wanted")
    return _Converter(graph, form).convert(inputs[0], outputs[0])


class _Converter:
    """The ONNX graph under construction; values are NCHW."""

    def __init__(self, graph: Graph, form: str) -> None:
        self.graph, self.form = graph, form
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.values: dict[str, str] = {}
        self.points: dict[str, int] = {}  # of what is rounded, by the value's name

    def convert(self, source: Op, result: Op) -> bytes:
        """The whole model."""
        self.values[source.get_name()] = INPUT
        for op in self.graph.toposort():
            if op.get_type() not in ("data", "const") and not _is_parameter(op):
                self.values[op.get_name()] = self._emit(op)
        self._node("Identity", [self.values[result.get_name()]], OUTPUT)
        _, height, width, channels = source.get_output_tensor().dims
        shape = result.get_output_tensor().dims[1:]
        onnx_graph = helper.make_graph(
            self.nodes, self.graph.get_name(),
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT,
                                           ["N", channels, height, width])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", *_first(shape)])],
            initializer=self.constants,
        )  # fmt: skip
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(onnx_graph, opset_imports=opset, ir_version=8)
        checker.check_model(model)
        return bytes(model.SerializeToString())

    def _emit(self, op: Op) -> str:
        kind = op.get_type()
        if kind == "fix":
            return self._fix(op)
        if kind in ("conv2d", "depthwise-conv2d"):
            return self._convolution(op)
        if kind in ("maxpool2d", "avgpool2d"):
            return self._pool(op)
        if kind == "mul" and scale_of(op.get_input_op("input")) is op:
            return self.values[op.get_input_op("input").get_name()]  # `_pool` has the factor
        inputs = [self.values[s.get_name()] for s in op.get_input_ops_by_name("input")]
        if kind == "relu6":
            return self._node("Clip", [*inputs, *(self._scalar(v) for v in (0.0, 6.0))])
        if kind not in _PLAIN:
            raise UnsupportedError(f"op {op.get_name()!r}: {kind} has no ONNX form here")
        onnx_kind, attrs = _PLAIN[kind]
        return self._node(onnx_kind, inputs, **attrs)

    def _fix(self, op: Op) -> str:
        """Round to int8 and back; a value that is rounded alike already passes."""
        point = int(op.get_attr("fix_point"))
        x = self.values[op.get_input_op("input").get_name()]
        if self.form == FLOAT32 or self.points.get(x) == point:
            return x
        signed = self.form == FLOAT_BIAS
        zero = self._scalar(0, np.int8) if signed else self._scalar(_ZERO, np.uint8)
        scale = self._scalar(2.0**-point)
        rounded = self._node("QuantizeLinear", [x, scale, zero])
        y = self._node("DequantizeLinear", [rounded, scale, zero])
        self.points[y] = point
        return y

    def _convolution(self, op: Op) -> str:
        x = self.values[op.get_input_op("input").get_name()]
        _, height, width, channels = op.get_input_tensor("input").dims
        window = window_of(op.get_attrs(), height, width)
        weights, weights_point = rounded_constant(self.graph, op.get_input_op("weights"))
        order = (3, 0, 1, 2) if op.get_type() == "depthwise-conv2d" else (0, 3, 1, 2)
        weights = weights.transpose(order)
        inputs = [x, self._parameter(weights, weights_point)]
        if op.get_input_num("bias"):
            inputs.append(self._bias(op, x, weights_point))
        return self._node(
            "Conv", inputs, group=channels // weights.shape[1],
            kernel_shape=[window.kernel_h, window.kernel_w],
            strides=[window.stride_h, window.stride_w],
            dilations=[window.dilation_h, window.dilation_w],
            pads=[window.pad_top, window.pad_left, window.pad_bottom, window.pad_right],
        )  # fmt: skip

    def _bias(self, op: Op, x: str, weights_point: int) -> str:
        bias, point = rounded_constant(self.graph, op.get_input_op("bias"))
        if self.form in (FLOAT_BIAS, FLOAT32):
            return self._constant(dequantise(bias, point))
        # Runtimes want a bias of int32 in the accumulator's scale.
        accumulator = max(self.points[x] + weights_point, point)
        integers = bias.astype(np.int64) << (accumulator - point)
        return self._parameter(integers.astype(np.int32), accumulator)

    def _pool(self, op: Op) -> str:
        _, height, width, channels = op.get_input_tensor("input").dims
        window = window_of(op.get_attrs(), height, width)
        attrs: dict[str, Any] = {
            "kernel_shape": [window.kernel_h, window.kernel_w],
            "strides": [window.stride_h, window.stride_w],
            "pads": [window.pad_top, window.pad_left, window.pad_bottom, window.pad_right],
        }
        x = self.values[op.get_input_op("input").get_name()]
        if op.get_type() == "maxpool2d":
            y = self._node("MaxPool", [x], **attrs)
            if x in self.points:
                self.points[y] = self.points[x]
            return y
        if scale_of(op) is None:
            raise UnsupportedError(f"op {op.get_name()!r}: an average without the DPU's factor")
        numerator, shift = pool_reciprocal(window.kernel_w, window.kernel_h)
        factor = pool_factor(window)
        if factor != 1 and self.form != FLOAT32:
            # A quotient such as sum / 9 has an error that moves halves; a convolution has none.
            kernel = np.full((channels, 1, window.kernel_h, window.kernel_w), numerator, np.int8)
            return self._node("Conv", [x, self._parameter(kernel, shift)], group=channels, **attrs)
        y = self._node("AveragePool", [x], count_include_pad=1, **attrs)
        return y if factor == 1 else self._node("Mul", [y, self._scalar(factor)])

    def _parameter(self, integers: Array, point: int) -> str:
        if self.form == FLOAT32:
            return self._constant(dequantise(integers, point))
        unsigned = integers.dtype == np.int8 and self.form == INT8
        if unsigned:
            integers = (integers.astype(np.int16) + _ZERO).astype(np.uint8)
        inputs = [self._constant(integers), self._scalar(2.0**-point)]
        zero = self._scalar(_ZERO if unsigned else 0, integers.dtype)
        return self._node("DequantizeLinear", [*inputs, zero])

    def _scalar(self, value: float, dtype: Any = np.float32) -> str:
        return self._constant(np.array(value, dtype))

    def _constant(self, array: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(
            array.shape), name))  # fmt: skip
        return name

    def _node(self, kind: str, inputs: list[str], name: str = "", **attrs: Any) -> str:
        name = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attrs))
        return name


def _first(shape: list[int]) -> list[int]:
    """Channels first."""
    return [shape[-1], *shape[:-1]] if len(shape) == 3 else shape


def _is_parameter(op: Op) -> bool:
    return op.get_type() == "fix" and op.get_input_op("input").get_type() == "const"
