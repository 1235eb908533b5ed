"""Ops that reshape, reorder, slice or pad values without computing new ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.errors import UnsupportedError
from tutelage.core.fixed_point import Array, Inputs
from tutelage.dpu.ops.attributes import attr
from tutelage.dpu.ops.data import given_numbers
from tutelage.dpu.ops.definition import (
    FLOAT,
    INT,
    ONE_INPUT,
    OPTIONAL,
    REQUIRED,
    Definition,
)
from tutelage.dpu.ops.fix import identity
from tutelage.dpu.ops.int8 import fix_point, input_fix_point, moving
from tutelage.dpu.ops.lowering import Grid, is_map, one_fix_point
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.ops.registry import OpType, Reference, register

if TYPE_CHECKING:
    from tutelage.dpu.ops.compiling import Compilation, Sink
    from tutelage.dpu.ops.engine_layers import EngineLayer
    from tutelage.dpu.ops.lowering import OnnxGraph


class Moving(OpType):
    """An op that only moves values.

    Parameters
    ----------
    move : reference function of the real form; the int8 form requantises its result
    real, int8 : whether there is such a form
    """

    moves = True

    def __init__(self, name: str, move: Reference, real: bool = True, int8: bool = True) -> None:
        super().__init__(name, move if real else None, moving(move) if int8 else None)


class Lowered(Moving):
    """A moving op with an ONNX equivalent."""

    def has_onnx(self, op: Any) -> bool:
        """Return whether ONNX's op supports these attributes."""
        return True

    def grid(self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]) -> Grid | None:
        return inputs[0] if self.has_onnx(op) and op.get_output_tensor().ndim > 1 else None

    def int8_is_exact(
        self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]
    ) -> bool:
        known = self.has_onnx(op) and one_fix_point(op, inputs)
        return known and op.get_output_tensor().ndim > 1


def check_one_fix_point(op: Any, sink: Sink, to: Compilation) -> Any:
    """Return the input of an op, after verifying that the op keeps the fix point.

    Raises
    ------
    Refusal
        The op changes the fix point.
    """
    source = op.get_input_op("input")
    if to.point(source) != sink.fix_point:
        raise Refusal("it changes the fix point")
    return source


class Identity(Lowered):
    """The input, unchanged."""

    same_order = free = True

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        return graph.x(op), is_map(op)


class Reshape(Lowered):
    """The same values in another shape."""

    definition: Definition | None = Definition(
        (("input", REQUIRED, FLOAT), ("shape", OPTIONAL, INT)),
        (("shape", OPTIONAL, "int32_vec_value", [0], 0),),
    )
    same_order = free = on_dpu = True

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        shape = given_numbers(op, "shape")
        if shape is None:  # not constant: the dims in the file then apply
            shape = op.get_output_tensor().dims
        if shape.count(-1) == 1:
            shape[shape.index(-1)] = math.prod(dims) // -math.prod(shape)
        if math.prod(shape) != math.prod(dims):
            raise UnsupportedError(f"op {op.get_name()!r}: cannot reshape {dims} to {shape}")
        return shape

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        dims = graph.constant([-1, *op.get_output_tensor().dims[1:]], np.int64)
        return graph.node("Reshape", [graph.x(op, 0, False), dims]), False

    def keeps_integers(self, op: Any) -> bool:
        return True

    def compile(self, op: Any, sink: Sink, to: Compilation) -> Any:
        source = check_one_fix_point(op, sink, to)
        return to.model.reshape(op.get_name(), to.int8(source), op.get_output_tensor().dims)


class Flatten(Reshape):
    """Consecutive axes merged into one."""

    definition = Definition(
        ONE_INPUT,
        (
            ("start_axis", REQUIRED, "int32_value", 0, 1),
            ("end_axis", REQUIRED, "int32_value", 0, 1),
        ),
    )
    becomes = "reshape"

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        start = attr(op, "start_axis", 1) % len(dims)
        end = attr(op, "end_axis", -1) % len(dims)
        return [*dims[:start], math.prod(dims[start : end + 1]), *dims[end + 1 :]]


class Squeeze(Reshape):
    """Axes of size 1 removed."""

    definition = None
    becomes = "reshape"

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        axes = attr(op, "axis", None) or [i for i, d in enumerate(dims) if d == 1]
        return [d for i, d in enumerate(dims) if i not in axes]


class Transpose(Lowered):
    """Axes permuted as in the attribute `order`."""

    left_to_cpu = permutes = True

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        return [dims[axis] for axis in op.get_attr("order")]

    def keeps_batch(self, op: Any, moving: Sequence[Any]) -> bool:
        return bool(op.get_attr("order")[0] == 0)

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        return graph.node("Transpose", [graph.x(op, 0, False)], perm=op.get_attr("order")), False

    def keeps_integers(self, op: Any) -> bool:
        return True


class Pad(OpType):
    """Padding with constants, edge values or mirrored values."""

    moves = on_dpu = True

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        flat = op.get_attr("paddings")
        return [d + b + a for d, b, a in zip(dims, flat[::2], flat[1::2], strict=True)]

    def keeps_batch(self, op: Any, moving: Sequence[Any]) -> bool:
        return not any(op.get_attr("paddings")[:2])

    def keeps_integers(self, op: Any) -> bool:
        return self.limit(op) == ""

    def limit(self, op: Any) -> str:
        """Require zero padding of maps, which the DPU computes as padding of a one-tap kernel."""
        flat, rank = list(op.get_attr("paddings")), op.get_output_tensor().ndim
        if str(attr(op, "mode", "CONSTANT")).upper() != "CONSTANT" or any(_fill(op)):
            return "padding with values other than 0"
        if rank != 4 or any((*flat[:2], *flat[6:])):
            return "padding along axes other than height and width"
        if min(flat) < 0:
            return f"negative padding {flat[2:6]}"
        if flat[2] + flat[3] > _MOST_PADDED or flat[4] + flat[5] > _MOST_PADDED:
            return f"padding {flat[2:6]}; the DPU supports up to {_MOST_PADDED}"
        return ""

    def compile(self, op: Any, sink: Sink, to: Compilation) -> Any:
        source = check_one_fix_point(op, sink, to)
        attrs = {"paddings": op.get_attr("paddings"), "mode": "CONSTANT"}
        return to.model.move(op.get_name(), "pad-fix", to.int8(source), attrs)

    def engine_layers(self, op: Any, constants: Mapping[str, Array]) -> Sequence[EngineLayer]:
        from tutelage.dpu.ops.engine_layers import SCALE, AluLayer

        if limit := self.limit(op):
            raise Refusal(limit)
        if fix_point(op) != input_fix_point(op):
            raise Refusal("it changes the fix point")
        top, bottom, left, right = op.get_attr("paddings")[2:6]
        _, rows, columns, channels = op.get_output_tensor().dims
        weights = np.zeros((bottom + 1, right + 1, channels), np.int8)
        weights[bottom, right] = 1  # windows must begin on the map, so the last tap is the pixel
        return [
            AluLayer(
                op.get_name(),
                (op.get_input_op("input").get_name(),),
                kernel=(bottom + 1, right + 1),
                pads=(top + bottom, left + right),
                output=(rows, columns),
                mode=SCALE,
                weights=weights,
            )
        ]


class StridedSlice(Moving):
    """Slice ``x[begin:end:strides]`` along every axis."""

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        ranges = (op.get_attr(name) for name in ("begin", "end", "strides"))
        spans = zip(dims, *ranges, strict=True)
        return [len(range(*slice(begin, end, step).indices(d))) for d, begin, end, step in spans]


def reshape(op: Any, inputs: Inputs) -> Array:
    """Return the values in the file's shape, for any batch: reshape, flatten and squeeze."""
    x, dims = inputs["input"][0], op.get_output_tensor().dims
    batch = x.size // max(1, math.prod(op.get_input_tensor("input", 0).dims))
    return x.reshape([dims[0] * batch, *dims[1:]]) if dims else x.reshape(())


def transpose(op: Any, inputs: Inputs) -> Array:
    """Return the input with its axes permuted as in the attribute `order`."""
    return np.ascontiguousarray(inputs["input"][0].transpose(op.get_attr("order")))


_MOST_PADDED = 15
"""Most rows above a map, and columns left of it, that ALU adds: `pad_top` and `pad_left`."""


def _fill(op: Any) -> list[float]:
    """Return the padding value, real or int8 depending on the form."""
    values = attr(op, "constant_values", None) or []
    return [float(value) for value in values]


def pad(op: Any, inputs: Inputs) -> Array:
    """Return the input padded with constants, edge values or mirrored values."""
    values = attr(op, "constant_values", None) or [0.0]
    return _padded(op, inputs["input"][0], float(values[0]))


def pad_fix(op: Any, inputs: Inputs) -> Array:
    """Return the int8 input padded as by `pad`; constant_values are int8 (XIR)."""
    fill = np.frombuffer(bytes(attr(op, "constant_values", b"")), np.int8)
    return _padded(op, inputs["input"][0], int(fill[0]) if fill.size else 0)


def _padded(op: Any, x: Array, fill: float) -> Array:
    """Return `x` padded by the attributes paddings [before, after per axis] and mode."""
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


def strided_slice(op: Any, inputs: Inputs) -> Array:
    """Return ``x[begin:end:strides]`` along every axis, for any batch."""
    x, begin, end = inputs["input"][0], list(op.get_attr("begin")), list(op.get_attr("end"))
    begin[0], end[0] = 0, x.shape[0]
    return x[tuple(map(slice, begin, end, op.get_attr("strides")))]


register(
    Identity("identity", identity),
    Reshape("reshape", reshape),
    Flatten("flatten", reshape),
    Squeeze("squeeze", reshape),
    Transpose("transpose", transpose),
    Pad("pad", pad, pad_fix),
    StridedSlice("strided_slice", strided_slice),
)
