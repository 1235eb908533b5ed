"""Elementwise sums, products and other functions of several tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.errors import UnsupportedError
from tutelage.core.fingerprint import DpuArray
from tutelage.core.fixed_point import (
    GUARD_BITS,
    MAX_ALIGNMENT,
    MAX_SHIFT,
    Array,
    Inputs,
    sum_is_exact,
)
from tutelage.dpu.ops.attributes import attr
from tutelage.dpu.ops.definition import INPUTS, Definition
from tutelage.dpu.ops.int8 import (
    activate,
    fix_point,
    input_fix_point,
    nonlinear,
    one_of,
    only_clips,
)
from tutelage.dpu.ops.limits import MAX_OPERANDS
from tutelage.dpu.ops.lowering import Grid, exact, finish_int8, half, is_map
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.ops.registry import OpType, register
from tutelage.dpu.ops.work import Operation, Shape, depthwise_per_cycle, pool_work

if TYPE_CHECKING:
    from tutelage.dpu.ops.compiling import Compilation, Sink
    from tutelage.dpu.ops.engine_layers import EngineLayer
    from tutelage.dpu.ops.lowering import OnnxGraph

_FUNCTIONS = {
    "ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "DIV": np.divide,
    "MIN": np.minimum, "MAX": np.maximum,
}  # fmt: skip
"""Functions by the attribute `type` of eltwise; in lower case the names of separate op types."""


class Eltwise(OpType):
    """Sum, product, difference, quotient, minimum or maximum of the inputs."""

    family = "join"

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        out = list(dims)
        for tensor in op.get_input_tensors_by_name("input")[1:]:
            other = tensor.dims
            width = max(len(out), len(other))
            left, right = [1] * (width - len(out)) + out, [1] * (width - len(other)) + other
            if any(a != b and 1 not in (a, b) for a, b in zip(left, right, strict=True)):
                raise UnsupportedError(f"op {op.get_name()!r}: cannot broadcast {other} with {out}")
            out = [max(a, b) for a, b in zip(left, right, strict=True)]
        return out


class Extremum(Eltwise):
    """Minimum or maximum."""

    family = "other"


class Int8Eltwise(Eltwise):
    """An elementwise op with the int8 form `eltwise-fix`."""

    takes_rows = True

    def int8_is_exact(
        self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]
    ) -> bool:
        return only_clips(op) and (eltwise_type(op) == "ADD" or len(inputs) == 2)

    def engine_layers(self, op: Any, constants: Mapping[str, Array]) -> Sequence[EngineLayer]:
        from tutelage.dpu.ops.engine_layers import EltwiseLayer

        names, points, out = _operands_of(op)
        if nonlinear(op) not in ("NONE", "RELU") or len(names) > MAX_OPERANDS:
            raise Refusal(f"the DPU has no eltwise of {len(names)} operands with {nonlinear(op)}")
        product = eltwise_type(op) == "MUL"
        reads = [0 if product else point - min(points) for point in points]
        write = out - (sum(points) if product else min(points))
        if max(reads) > MAX_ALIGNMENT or abs(write) > MAX_ALIGNMENT:
            raise Refusal(f"fix points {points} to {out} are too far apart")
        relu = nonlinear(op) == "RELU"
        return [EltwiseLayer(op.get_name(), names, product, tuple(reads), write, relu)]

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        count, out = op.get_input_num("input"), fix_point(op)
        points = [input_fix_point(op, "input", i) for i in range(count)]
        if eltwise_type(op) == "MUL":
            shift = sum(points) - out
            total = graph.node("Mul", [graph.x(op, 0), graph.x(op, 1)])
            total = graph.node("Mul", [total, graph.constant(2.0**-shift)])
        else:
            total, shift = _aligned_sum(op, graph, points, out)
        total = graph.node("Add", [total, graph.constant(half("round", shift))])
        return finish_int8(op, graph, total, "round"), is_map(op)


def _aligned_sum(op: Any, graph: OnnxGraph, points: list[int], out: int) -> tuple[str, int]:
    """Return the sum in units of the output, and by how many bits its terms are finer."""
    kept, total = min(points) + GUARD_BITS, ""
    for index, point in enumerate(points):
        part = graph.x(op, index)
        if point > kept:
            part = graph.node("Mul", [part, graph.constant(2.0 ** (kept - point))])
            part, point = graph.node("Floor", [part]), kept
        if point != out:
            part = graph.node("Mul", [part, graph.constant(2.0 ** (out - point))])
        total = graph.node("Add", [total, part]) if total else part
    return total, min(max(points), kept) - out


class ByChannel(Eltwise):
    """The int8 form of a product with one factor per channel: `depthwise-fix`."""

    def engine_layers(self, op: Any, constants: Mapping[str, Array]) -> Sequence[EngineLayer]:
        from tutelage.dpu.ops.engine_layers import ACTIVATIONS, SCALE, AluLayer

        (first, second), points, out = _operands_of(op)
        dims = [math.prod(t.dims) for t in op.get_input_tensors_by_name("input")]
        full, factors = (first, second) if dims[0] >= dims[1] else (second, first)
        shift = sum(points) - out
        if eltwise_type(op) != "MUL" or not only_clips(op) or not 0 <= shift <= MAX_SHIFT:
            raise Refusal(f"unsupported product per channel with shift {shift}")
        size = op.get_output_tensor().dims[1:3]
        return [
            AluLayer(
                op.get_name(),
                (full,),
                output=(size[0], size[1]),
                mode=SCALE,
                scaled_by=factors,
                shift_cut=shift,
                act_type=ACTIVATIONS[nonlinear(op)],
            )
        ]

    def work(self, operation: Operation, inputs: Sequence[Shape], array: DpuArray) -> int:
        """Return the operations of a 1x1 depthwise convolution."""
        return pool_work(*operation.output, *operation.kernel, array) * 3

    def cycles(self, operation: Operation, inputs: Sequence[Shape], array: DpuArray) -> float:
        found = pool_work(*operation.output, *operation.kernel, array)
        return found / depthwise_per_cycle(array)


def _operands_of(op: Any) -> tuple[tuple[str, ...], list[int], int]:
    """Return names and fix points of an op's inputs, and its own fix point."""
    names = tuple(source.get_name() for source in op.get_input_ops_by_name("input"))
    points = [input_fix_point(op, "input", index) for index in range(len(names))]
    return names, points, fix_point(op)


class Join(Eltwise):
    """A sum or product of real numbers, which the DPU supports too."""

    definition = Definition(INPUTS)
    on_dpu = takes_rows = True
    becomes = "eltwise"

    def check_operands(self, op: Any, dims: list[list[int]]) -> None:
        """Raise Refusal for operands that the DPU does not support."""
        if len(dims) > MAX_OPERANDS:
            raise Refusal(f"{len(dims)} operands; the DPU supports at most {MAX_OPERANDS}")
        if any(other != dims[0] for other in dims) and not self.takes_factors(dims):
            raise Refusal("the operands have different shapes")

    def takes_factors(self, dims: list[list[int]]) -> bool:
        """Return whether the DPU supports operands of these different shapes."""
        return False


class Add(Join):
    """The sum of the inputs."""

    fuses = ("RELU",)

    def grid(self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]) -> Grid | None:
        point = max(g.point for g in inputs)
        return exact(point, sum(g.bound << (point - g.point) for g in inputs))

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        total = graph.x(op, 0)
        for index in range(1, op.get_input_num("input")):
            total = graph.node("Add", [total, graph.x(op, index)])
        return total, is_map(op)

    def compile(self, op: Any, sink: Sink, to: Compilation) -> Any:
        self.check_operands(op, [t.dims for t in op.get_input_tensors_by_name("input")])
        sources = op.get_input_ops_by_name("input")
        _check_sum([to.point(source) or 0 for source in sources], sink.fix_point)
        values = [to.int8(source) for source in sources]
        return to.model.add(op.get_name(), values, sink.fix_point, sink.nonlinear)


def _check_sum(points: list[int], out: int) -> None:
    """Raise Refusal for a sum in which the DPU drops bits that the file keeps."""
    if max(points) - min(points) > MAX_ALIGNMENT or abs(out - min(points)) > MAX_ALIGNMENT:
        raise Refusal(f"the inputs' fix points {points} are too far apart")
    if not sum_is_exact(points, out):
        raise Refusal(f"the DPU drops bits of inputs with fix points {points}")


class Mul(Join):
    """The product of the inputs."""

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        """Pass on an average pool, which already includes its factor (analyse)."""
        return graph.x(op), is_map(op)

    def takes_factors(self, dims: list[list[int]]) -> bool:
        """Return whether one operand is a map and the other has one factor per channel."""
        if len(dims) != 2:
            return False
        factors, full = sorted(dims, key=math.prod)
        return len(full) == 4 and factors == [*full[:1], 1, 1, full[3]]

    def compile(self, op: Any, sink: Sink, to: Compilation) -> Any:
        self.check_operands(op, [t.dims for t in op.get_input_tensors_by_name("input")])
        values = [to.int8(source) for source in op.get_input_ops_by_name("input")]
        return to.model.multiply(op.get_name(), values, sink.fix_point)


def eltwise_type(op: Any) -> str:
    """Return "ADD" (the default) or "MUL".

    Raises
    ------
    UnsupportedError
        The op has another type.
    """
    return one_of(op, attr(op, "type", "ADD"), ("ADD", "MUL"))


def eltwise(op: Any, inputs: Inputs) -> Array:
    """Return the sum, product, difference, quotient, minimum or maximum of the inputs.

    Products are rounded to `PRODUCT_BITS` significant bits: a mean, or a sixth, times the factor
    of the DPU has fewer, so the result is exactly the DPU's value (dpu/ops/factors.py).
    """
    own = op.get_type().upper()
    kind = attr(op, "type", None) or (own if own in _FUNCTIONS else "ADD")
    if kind not in _FUNCTIONS:
        raise UnsupportedError(f"op {op.get_name()!r}: eltwise type {kind!r} is not implemented")
    total = inputs["input"][0].astype(np.float64)
    for array in inputs["input"][1:]:
        total = _FUNCTIONS[kind](total, array)
    return _to_product_bits(total) if kind == "MUL" else np.asarray(total)


PRODUCT_BITS = 40
"""More bits than a DPU factor (8 bits) times a sum over its largest window (24 bits) has."""


def _to_product_bits(values: Array) -> Array:
    mantissas, exponents = np.frexp(values)
    return np.ldexp(np.rint(np.ldexp(mantissas, PRODUCT_BITS)), exponents - PRODUCT_BITS)


def eltwise_fix(op: Any, inputs: Inputs) -> Array:
    """Return `int8.activate` of the sum or product of the inputs.

    ADD floors each input to two bits below the coarsest one (`GUARD_BITS`), MUL
    is exact. The DPU supports only ADD and MUL (AMD's simulator).
    """
    arrays = [array.astype(np.int64) for array in inputs["input"]]
    points = [input_fix_point(op, "input", index) for index in range(len(arrays))]
    if eltwise_type(op) == "ADD":
        coarsest = min(points)
        # A shift by more bits than the value has leaves 0 or -1, as a shift by 63 does.
        kept = [
            (array << GUARD_BITS) >> min(point - coarsest, 63)
            for array, point in zip(arrays, points, strict=True)
        ]
        return activate(reduce(np.add, kept), op, coarsest + GUARD_BITS)
    return activate(reduce(np.multiply, arrays), op, sum(points))


register(
    Int8Eltwise("eltwise", eltwise, eltwise_fix),
    ByChannel("depthwise", None, eltwise_fix),
    Add("add", eltwise),
    Mul("mul", eltwise),
    Eltwise("sub", eltwise),
    Eltwise("div", eltwise),
    Extremum("min", eltwise),
    Extremum("max", eltwise),
)
