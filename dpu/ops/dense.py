"""Dense layers: products with a weight matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.errors import UnsupportedError
from tutelage.core.fixed_point import Array, Inputs
from tutelage.dpu.ops.attributes import attr
from tutelage.dpu.ops.int8 import finish, input_fix_point, only_clips
from tutelage.dpu.ops.lowering import Grid, parameter
from tutelage.dpu.ops.products import compile_convolution, fixed_convolution, sum_grid
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.ops.registry import OpType, register

if TYPE_CHECKING:
    from tutelage.dpu.ops.compiling import Compilation, Sink
    from tutelage.dpu.ops.lowering import OnnxGraph


class Dense(OpType):
    """A layer that the compiler turns into a convolution."""

    dense = True
    becomes = "conv2d"
    family = "conv"

    def depth(self, op: Any, taps: Sequence[int]) -> int:
        """Return the inputs per output, over the whole input map."""
        return math.prod(taps) // int(op.get_output_tensor().dims[-1])


class InnerProduct(Dense):
    """Inner product: ``x . w + bias`` over the flattened input, weights (O, ...)."""

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        return [dims[0], op.get_input_tensor("weights", 0).dims[0]]

    def int8_is_exact(
        self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]
    ) -> bool:
        return only_clips(op) and parameter(constants, op) is not None

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        weights = parameter(graph.parameters, op)
        assert weights is not None
        flat = weights.reshape(len(weights), 1, 1, -1)
        shape = graph.constant([-1, flat.shape[3], 1, 1], np.int64)
        x = graph.node("Reshape", [graph.x(op, 0, False), shape])
        attrs = {"kernel_shape": [1, 1]}
        y = fixed_convolution(op, graph, x, flat, (0, 3, 1, 2), "Conv", attrs)
        dims = [-1, *op.get_output_tensor().dims[1:]]
        return graph.node("Reshape", [y, graph.constant(dims, np.int64)]), False


class Matmul(Dense):
    """Matrix product: ``a @ b + bias`` on the last two axes, with optional transposition.

    If b is a constant matrix and a consists of rows, it is a dense layer.
    """

    on_dpu = True
    takes_constants = True

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        other = op.get_input_tensor("input", 1).dims
        if min(len(dims), len(other)) >= 2:
            (rows, inner), (taken, columns) = dims[-2:], other[-2:]
            if attr(op, "transpose_a", False):
                rows, inner = inner, rows
            if attr(op, "transpose_b", False):
                taken, columns = columns, taken
            if inner == taken:
                return [*dims[:-2], rows, columns]
        raise UnsupportedError(f"op {op.get_name()!r}: cannot multiply {dims} by {other}")

    def keeps_batch(self, op: Any, moving: Sequence[Any]) -> bool:
        """Return whether the batch stays the first axis: only as the rows of the left matrix."""
        if op.get_output_tensor().ndim != 2:
            return True
        left = [op.get_input_op("input")] == list(moving)
        return left and not attr(op, "transpose_a", False)

    def grid(self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]) -> Grid | None:
        first, second = op.get_input_ops_by_name("input")
        matrix = constants.get(second.get_name())
        rows = first.get_name() not in constants and not attr(op, "transpose_a", False)
        if not rows or matrix is None or matrix.ndim != 2:
            return None
        return sum_grid(op, inputs[0], (second, _outputs_first(op, matrix)), constants)

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        matrix = graph.parameters[op.get_input_op("input", 1).get_name()]
        weights = graph.constant(_outputs_first(op, matrix).T)
        y = graph.node("MatMul", [graph.x(op, 0, False), weights])
        bias = parameter(graph.parameters, op, "bias")
        return y if bias is None else graph.node("Add", [y, graph.constant(bias)]), False

    def compile(self, op: Any, sink: Sink, to: Compilation) -> Any:
        """Compile a product with a constant matrix to a 1x1 convolution, as AMD's compiler does."""
        given = op.get_input_ops_by_name("input")
        dims = given[0].get_output_tensor().dims
        if to.computed(op) != [given[0]] or attr(op, "transpose_a", False):
            raise Refusal("the second operand is not a constant")
        if len(dims) != 2:
            raise Refusal(f"matrix products of tensors with {len(dims)} axes are not supported")
        if dims[0] != 1:
            raise Refusal(f"matrix products of {dims[0]} rows are not supported")
        matrix, point = to.integers(given[1], "weights")
        weights = np.ascontiguousarray(_outputs_first(op, matrix))[:, None, None], point
        name = f"{op.get_name()}(TransferMatMulToConv2d)"
        y = compile_convolution(op, sink, to, name, given, weights, stride=(1, 1))
        return to.model.reshape(f"{sink.tensor}_reshaped", y, op.get_output_tensor().dims)

    def macs(self, op: Any, taps: Sequence[int] | None) -> int:
        first = op.get_input_tensor("input").dims
        inner = first[-2 if attr(op, "transpose_a", False) else -1]
        return math.prod(op.get_output_tensor().dims) * int(inner)

    def is_dense(self, op: Any, weights: Any) -> bool:
        second = op.get_input_op("input", 1)
        return second is weights and not attr(op, "transpose_a", False)

    def matrix(self, op: Any, weights: Array, outputs: int) -> Array:
        if attr(op, "transpose_b", False):
            return super().matrix(op, weights, outputs)
        return weights.reshape(-1, outputs).T


def _outputs_first(op: Any, matrix: Array) -> Array:
    """Return the constant matrix of a dense layer as (outputs, inputs)."""
    return matrix if attr(op, "transpose_b", False) else matrix.T


def inner_product(op: Any, inputs: Inputs) -> Array:
    """Return ``x . w + bias`` over the flattened input, weights (O, ...)."""
    x, weights = inputs["input"][0], inputs["weights"][0]
    flat = x.reshape(x.shape[0], -1).astype(np.float64)
    out = flat @ weights.reshape(weights.shape[0], -1).T.astype(np.float64)
    return _plus_bias(out, inputs).reshape(x.shape[0], *op.get_output_tensor().dims[1:])


def matmul(op: Any, inputs: Inputs) -> Array:
    """Return ``a @ b + bias``, with optional transposition of either."""
    a, b = (array.astype(np.float64) for array in inputs["input"])
    return _plus_bias(_product(op, a, b), inputs)


def _product(op: Any, a: Array, b: Array) -> Array:
    a = a.swapaxes(-1, -2) if attr(op, "transpose_a", False) else a
    b = b.swapaxes(-1, -2) if attr(op, "transpose_b", False) else b
    return np.asarray(a @ b)


def _plus_bias(out: Array, inputs: Inputs) -> Array:
    return out + inputs["bias"][0] if inputs.get("bias") else out


def inner_product_fix(op: Any, inputs: Inputs) -> Array:
    """Return `int8.finish` of ``x . w`` over the flattened input; weights (O, ...) (XIR)."""
    x = inputs["input"][0]
    weights = inputs["weights"][0].astype(np.int64)
    flat = x.reshape(x.shape[0], -1).astype(np.int64)
    acc = flat @ weights.reshape(weights.shape[0], -1).T
    out = finish(acc, op, inputs, input_fix_point(op) + input_fix_point(op, "weights"))
    return out.reshape(x.shape[0], *op.get_output_tensor().dims[1:])


def matmul_fix(op: Any, inputs: Inputs) -> Array:
    """Return `int8.finish` of ``a . b``, with optional transposition of either (XIR)."""
    a, b = (array.astype(np.int64) for array in inputs["input"])
    point = input_fix_point(op) + input_fix_point(op, "input", 1)
    return finish(_product(op, a, b), op, inputs, point)


register(
    InnerProduct("inner-product", inner_product, inner_product_fix),
    Matmul("matmul", matmul, matmul_fix),
)
