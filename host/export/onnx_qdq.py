"""Conversion of a quantised graph to ONNX with QuantizeLinear and DequantizeLinear.

    model = to_onnx(to_quantised(student, "densenet"))
    onnxruntime.InferenceSession(model).run(None, {"images": images})    # NCHW float32

Scales are powers of two, from the fix points. The model computes the same function as the student
except for ties: ONNX rounds halves to even, the DPU up. For exact logits run the .xmodel.

Activations and weights are unsigned bytes with zero point 128, that is the DPU's q plus 128. x86
processors without VNNI multiply unsigned by signed bytes and add two of the products in 16 bits
(VPMADDUBSW), where the sum saturates. ONNX Runtime and OpenVINO use this instruction for int8
weights. For uint8 weights ONNX Runtime's kernels (MLAS: GemmU8U8 for SSE2, AVX2, AVX-512 and NEON)
widen bytes before they multiply them, and OpenVINO's CPU plugin computes convolutions in float32.
Activations are unsigned because OpenVINO 2026.4 rounds the input of an int8 QuantizeLinear after a
Concat to whole numbers, whatever the scale, if a convolution follows (with AVX2, AVX-512 and VNNI;
not with AMX).

`form` selects variants for other runtimes: `INT8_WEIGHTS` has int8 weights, which are faster on
processors with VNNI (OpenVINO rounds additions that it fuses into a convolution by up to one step
differently); `FLOAT_BIAS` has zero points 0 and float32 biases, as TensorRT requires; `FLOAT32` has
the student's rounded parameters as float32 and does not round activations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from tutelage.core.errors import UnsupportedError
from tutelage.core.fixed_point import Array, dequantise
from tutelage.dpu.engine.program import graph_outputs
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op
from tutelage.host.quantise import layers  # noqa: F401 - registers the forms
from tutelage.host.quantise.onnx_form import FORMS

OPSET = 17
INPUT, OUTPUT = "images", "logits"
INT8, INT8_WEIGHTS, FLOAT_BIAS, FLOAT32 = "int8", "int8-weights", "int8-float-bias", "float32"

_ZERO = 128
"""Zero point of unsigned bytes: q + 128 is in 0 .. 255 for each int8 q."""


def to_onnx(graph: Graph, form: str = INT8) -> bytes:
    """Return the serialized ONNX model of a quantised graph.

    The input is "images" (N, C, H, W), float32, normalised, the output "logits". Further ones are
    "images_2", "logits_2" and so on.

    Parameters
    ----------
    form : INT8, INT8_WEIGHTS, FLOAT_BIAS or FLOAT32

    Raises
    ------
    UnsupportedError
        The graph has an op that has no ONNX form here.
    """
    inputs = [op for op in graph.toposort() if op.get_type() == "data"]
    return _Converter(graph, form).convert(inputs, graph_outputs(graph))


class _Converter:
    """Builder of the ONNX graph (`OnnxGraph`); values are NCHW."""

    def __init__(self, graph: Graph, form: str) -> None:
        self.graph, self.form = graph, form
        self.rounds = form != FLOAT32
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.values: dict[str, str] = {}  # by the op's name
        self.points: dict[str, int] = {}  # fix points of rounded values, by name

    def convert(self, sources: list[Op], results: list[Op]) -> bytes:
        """Return the serialized model."""
        for name, op in zip(_names(INPUT, len(sources)), sources, strict=True):
            self.set_value(op, name)
        for op in self.graph.toposort():
            done = op.get_type() == "const" or op.get_name() in self.values
            if not done and not _is_parameter(op):
                self.set_value(op, self._form_of(op)(self, op))
        names = _names(OUTPUT, len(results))
        for name, op in zip(names, results, strict=True):
            self.node("Identity", [self.values[op.get_name()]], name)
        onnx_graph = helper.make_graph(
            self.nodes, self.graph.get_name(),
            [_info(self.values[op.get_name()], op) for op in sources],
            [_info(name, op) for name, op in zip(names, results, strict=True)],
            initializer=self.constants,
        )  # fmt: skip
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(onnx_graph, opset_imports=opset, ir_version=8)
        checker.check_model(model)
        return bytes(model.SerializeToString())

    @staticmethod
    def _form_of(op: Op) -> Callable[[_Converter, Op], str]:
        kind = op.get_type()
        if kind == "fix":
            return _Converter._fix
        if kind not in FORMS:
            raise UnsupportedError(f"op {op.get_name()!r}: {kind} cannot be converted to ONNX")
        return FORMS[kind]

    def _fix(self, op: Op) -> str:
        """Quantise and dequantise a value, unless it has this fix point already."""
        point = int(op.get_attr("fix_point"))
        (x,) = self.inputs(op)
        if not self.rounds or self.points.get(x) == point:
            return x
        signed = self.form == FLOAT_BIAS
        zero = self.scalar(0, np.int8) if signed else self.scalar(_ZERO, np.uint8)
        scale = self.scalar(2.0**-point)
        rounded = self.node("QuantizeLinear", [x, scale, zero])
        y = self.node("DequantizeLinear", [rounded, scale, zero])
        self.points[y] = point
        return y

    # -- OnnxGraph, for the forms of ops -------------------------------------------------

    def inputs(self, op: Op) -> list[str]:
        """See `OnnxGraph`."""
        return [self.values[source.get_name()] for source in op.get_input_ops_by_name("input")]

    def set_value(self, op: Op, value: str) -> None:
        """See `OnnxGraph`."""
        self.values[op.get_name()] = value

    def keep_fix_point(self, x: str, y: str) -> None:
        """See `OnnxGraph`."""
        if x in self.points:
            self.points[y] = self.points[x]

    def node(self, kind: str, inputs: list[str], name: str = "", **attrs: Any) -> str:
        """See `OnnxGraph`; the value is named `name`, or numbered."""
        name = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attrs))
        return name

    def bias(self, integers: Array, fix_point: int, x: str, weights_fix_point: int) -> str:
        """See `OnnxGraph`: int32 in the accumulator's scale, or float32."""
        if self.form in (FLOAT_BIAS, FLOAT32):
            return self.constant(integers.astype(np.float32) * np.float32(2.0**-fix_point))
        accumulator = max(self.points[x] + weights_fix_point, fix_point)
        integers = integers.astype(np.int64) << (accumulator - fix_point)
        return self.parameter(integers.astype(np.int32), accumulator)

    def parameter(self, integers: Array, fix_point: int) -> str:
        """See `OnnxGraph`; int8 becomes uint8 in the form `INT8`."""
        if self.form == FLOAT32:
            return self.constant(dequantise(integers, fix_point))
        unsigned = integers.dtype == np.int8 and self.form == INT8
        if unsigned:
            integers = (integers.astype(np.int16) + _ZERO).astype(np.uint8)
        inputs = [self.constant(integers), self.scalar(2.0**-fix_point)]
        zero = self.scalar(_ZERO if unsigned else 0, integers.dtype)
        return self.node("DequantizeLinear", [*inputs, zero])

    def scalar(self, value: float, dtype: Any = np.float32) -> str:
        """See `OnnxGraph`."""
        return self.constant(np.array(value, dtype))

    def constant(self, array: Array) -> str:
        """See `OnnxGraph`."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(
            array.shape), name))  # fmt: skip
        return name


def _names(first: str, count: int) -> list[str]:
    """Return names of inputs or outputs."""
    return [first, *(f"{first}_{number}" for number in range(2, count + 1))]


def _info(name: str, op: Op) -> Any:
    """Return the description of an input or output in the model."""
    shape: list[str | int | None] = ["N", *_first(op.get_output_tensor().dims[1:])]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _first(shape: list[int]) -> list[int]:
    """Return a shape with the channels first."""
    return [shape[-1], *shape[:-1]] if len(shape) == 3 else shape


def _is_parameter(op: Op) -> bool:
    return op.get_type() == "fix" and op.get_input_op("input").get_type() == "const"
