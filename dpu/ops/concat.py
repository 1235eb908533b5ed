"""Concatenation and stacking of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.errors import UnsupportedError
from tutelage.core.fixed_point import EXACT_FLOAT32, MAX_ALIGNMENT, Array, Inputs
from tutelage.dpu.ops.attributes import attr
from tutelage.dpu.ops.definition import INPUTS, REQUIRED, Definition
from tutelage.dpu.ops.int8 import fix_point, input_fix_point, requantise
from tutelage.dpu.ops.lowering import Grid, exact, is_map, one_fix_point
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.ops.registry import OpType, register, type_of

if TYPE_CHECKING:
    from tutelage.dpu.ops.compiling import Compilation, Sink
    from tutelage.dpu.ops.lowering import OnnxGraph


class Concat(OpType):
    """The inputs concatenated along `axis`."""

    definition = Definition(INPUTS, (("axis", REQUIRED, "int32_value", 0, 1),))
    joins = moves = free = on_dpu = True
    family = "join"

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        axis = op.get_attr("axis") % len(dims)
        for tensor in op.get_input_tensors_by_name("input"):
            if tensor.ndim != len(dims) or any(
                a != b for i, (a, b) in enumerate(zip(tensor.dims, dims, strict=True)) if i != axis
            ):
                what = f"cannot concatenate {tensor.dims} and {dims}"
                raise UnsupportedError(f"op {op.get_name()!r}: {what}")
        total = sum(tensor.dims[axis] for tensor in op.get_input_tensors_by_name("input"))
        return [*dims[:axis], total, *dims[axis + 1 :]]

    def keeps_batch(self, op: Any, moving: Sequence[Any]) -> bool:
        return keeps_batch_of(op, moving, default_axis=-1)

    def grid(self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]) -> Grid | None:
        point = max(g.point for g in inputs)
        return exact(point, max(g.bound << (point - g.point) for g in inputs))

    def int8_is_exact(
        self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]
    ) -> bool:
        return one_fix_point(op, inputs) and op.get_output_tensor().ndim > 1

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        axis = op.get_attr("axis")
        axis = {1: 2, 2: 3, 3: 1}[axis % 4] if is_map(op) else axis
        parts = [self._part(op, index, graph) for index in range(op.get_input_num("input"))]
        return graph.node("Concat", parts, axis=axis), is_map(op)

    def _part(self, op: Any, index: int, graph: OnnxGraph) -> str:
        """Return one of the joined tensors; of a graph input in another shape, a copy.

        OpenVINO 2026.4 joins such an input in place, in memory that other ops read, which makes
        their results wrong. It does not do so with the output of a Clip.
        """
        source, name = op.get_input_op("input", index), graph.x(op, index)
        while type_of(source).same_order and source.get_input_num("input"):
            source = source.get_input_op("input")
            if graph.is_given(source):
                ends = [graph.constant(end) for end in (-EXACT_FLOAT32, EXACT_FLOAT32)]
                return graph.node("Clip", [name, *ends])
        return name

    def keeps_integers(self, op: Any) -> bool:
        return True

    def compile(self, op: Any, sink: Sink, to: Compilation) -> Any:
        """Requantise inputs with other fix points by a sum with a single operand."""
        sources = []
        given = op.get_input_ops_by_name("input")
        points = [to.point(source) or 0 for source in given]
        if any(abs(point - sink.fix_point) > MAX_ALIGNMENT for point in points):
            raise Refusal(f"fix points {points} to {sink.fix_point} are too far apart")
        for number, source in enumerate(given):
            value = to.int8(source)
            if fix_point(value) != sink.fix_point:
                name = f"{op.get_name()}_requantised_{number}"
                value = to.model.add(name, [value], sink.fix_point)
            sources.append(value)
        return to.model.concat(op.get_name(), sources, int(op.get_attr("axis")))


class Stack(OpType):
    """The inputs stacked along a new axis `axis`."""

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        if any(tensor.dims != dims for tensor in op.get_input_tensors_by_name("input")):
            raise UnsupportedError(f"op {op.get_name()!r}: the inputs have different shapes")
        axis = attr(op, "axis", 0) % (len(dims) + 1)
        return [*dims[:axis], op.get_input_num("input"), *dims[axis:]]

    def keeps_batch(self, op: Any, moving: Sequence[Any]) -> bool:
        return keeps_batch_of(op, moving, default_axis=0)


def keeps_batch_of(op: Any, moving: Sequence[Any], default_axis: int) -> bool:
    """Return whether an op that joins along `axis` joins only batches, and not along axis 0."""
    if len(moving) != op.get_input_num("input"):
        return False  # constants have no batch
    rank = op.get_output_tensor().ndim
    return bool(attr(op, "axis", default_axis) % rank != 0)


def concat(op: Any, inputs: Inputs) -> Array:
    """Return the inputs concatenated along `axis`."""
    return np.concatenate(inputs["input"], op.get_attr("axis"))


def concat_fix(op: Any, inputs: Inputs) -> Array:
    """Return the inputs concatenated, after requantising those with other fix points."""
    axis = op.get_attr("axis")
    parts = [
        requantise(array, input_fix_point(op, "input", index), fix_point(op))
        for index, array in enumerate(inputs["input"])
    ]
    return np.concatenate(parts, axis)


def stack(op: Any, inputs: Inputs) -> Array:
    """Return the inputs stacked along a new axis `axis`."""
    return np.stack(inputs["input"], attr(op, "axis", 0))


register(Concat("concat", concat, concat_fix), Stack("stack", stack))
