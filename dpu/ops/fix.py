"""Ops that round to fixed point, convert back to real numbers and copy to or from the DPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.fixed_point import (
    EXACT_FLOAT32,
    Array,
    Inputs,
    dequantise,
    integer_range,
    integers_of,
    quantise,
    saturate,
)
from tutelage.dpu.ops.attributes import attr
from tutelage.dpu.ops.data import constant
from tutelage.dpu.ops.definition import ONE_INPUT, REQUIRED, Definition
from tutelage.dpu.ops.int8 import moving
from tutelage.dpu.ops.lowering import (
    Grid,
    declared,
    finish,
    half,
    is_map,
    one_fix_point,
)
from tutelage.dpu.ops.registry import OpType, register

if TYPE_CHECKING:
    from tutelage.dpu.ops.lowering import OnnxGraph

QUANTISED = {"bit_width": 8, "if_signed": True, "round_mode": "DPU_ROUND"}
"""Attributes, besides the fix point, of all int8 tensors and fix ops of networks for the DPU."""


def fix(op: Any, inputs: Inputs) -> Array:
    """Return ``clip(round(x * 2**p)) * 2**-p`` as float32, where p is the attribute fix_point."""
    point = op.get_attr("fix_point")
    return (_quantised(op, inputs["input"][0]) * 2.0**-point).astype(np.float32)


def float2fix(op: Any, inputs: Inputs) -> Array:
    """Return ``clip(round(x * 2**p))`` as int8."""
    return _quantised(op, inputs["input"][0]).astype(np.int8)


def fix2float(op: Any, inputs: Inputs) -> Array:
    """Return ``q * 2**-p`` as float32."""
    return dequantise(inputs["input"][0], op.get_attr("fix_point"))


def _quantised(op: Any, x: Array) -> Array:
    signed = bool(attr(op, "if_signed", True))
    mode, width = attr(op, "round_mode", QUANTISED["round_mode"]), op.get_attr("bit_width")
    return quantise(x, op.get_attr("fix_point"), mode, width, signed)


def identity(op: Any, inputs: Inputs) -> Array:
    """Return the input unchanged, for upload, download and identity."""
    return inputs["input"][0]


def is_fix(op: Any) -> bool:
    """Return whether the op rounds real numbers without converting them to integers."""
    return bool(op.get_type() == "fix")


def is_int8_fix(op: Any) -> bool:
    """Return whether the op rounds real numbers to the grid of int8, in any rounding mode."""
    return (
        is_fix(op)
        and int(op.get_attr("bit_width")) == QUANTISED["bit_width"]
        and bool(attr(op, "if_signed", True))
    )


def is_dpu_fix(op: Any) -> bool:
    """Return whether the op rounds to int8 as the DPU does."""
    return is_int8_fix(op) and _rounds_as_dpu(op)


def rounds_to(op: Any, point: int) -> bool:
    """Return whether the op rounds as the DPU does, to this fix point."""
    return is_dpu_fix(op) and int(op.get_attr("fix_point")) == point


def rounds_exactly(op: Any) -> bool:
    """Return whether the op is a `fix` that rounds as the DPU does, to any number of bits."""
    return is_fix(op) and bool(attr(op, "if_signed", True)) and _rounds_as_dpu(op)


def _rounds_as_dpu(op: Any) -> bool:
    mode = QUANTISED["round_mode"]
    return bool(attr(op, "round_mode", mode) == mode)


def rounded_constant(graph: Any, op: Any) -> tuple[Array, int]:
    """Return the int8 values, in the file's order, and the fix point of a `fix` of a constant.

    Raises
    ------
    XmodelError
        The constant's bytes are missing or too few.
    """
    values = constant(graph, op.get_input_op("input"))
    point = int(op.get_attr("fix_point"))
    rounded = np.asarray(fix(op, {"input": [values]}), np.float64)
    return saturate(integers_of(rounded, point)), point


class Fix(OpType):
    """Rounding of real numbers to a fixed-point grid."""

    rounds = True
    definition = Definition(
        ONE_INPUT,
        (
            ("fix_point", REQUIRED, "int32_value", 0, 1),
            ("bit_width", REQUIRED, "int32_value", 0, 1),
            ("round_mode", REQUIRED, "string_value", "", 1),
            ("if_signed", REQUIRED, "bool_value", False, 1),
        ),
    )

    def grid(self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]) -> Grid | None:
        exact = rounds_exactly(op) and 2 * inputs[0].bound + 1 < EXACT_FLOAT32
        return declared(op) if exact else None

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        """Emit nodes that scale, round, saturate and scale back."""
        point = int(op.get_attr("fix_point"))
        known = graph.grid(op.get_input_op("input"))
        x = graph.node("Mul", [graph.x(op), graph.constant(2.0**point)])
        x = graph.node("Add", [x, graph.constant(half("round", known.point - point))])
        x = finish(graph, x, "round", *integer_range(int(op.get_attr("bit_width")), True))
        return graph.node("Mul", [x, graph.constant(2.0**-point)]), is_map(op)


class Float2Fix(OpType):
    """Conversion of real numbers to integers."""

    rounds = gives_int8 = True


class Fix2Float(OpType):
    """Conversion of integers to the real numbers they represent."""

    transparent = True


class Copy(OpType):
    """Copy of integers to or from the DPU."""

    transparent = gives_int8 = True

    def __init__(self, name: str) -> None:
        super().__init__(name, identity, moving(identity), int8_type=name)

    def int8_is_exact(
        self, op: Any, inputs: Sequence[Grid], constants: Mapping[str, Array]
    ) -> bool:
        return one_fix_point(op, inputs) and op.get_output_tensor().ndim > 1

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        return graph.x(op), is_map(op)


class Upload(Copy):
    """Copy of integers to the DPU."""

    names_subgraph = False


register(
    Fix("fix", fix),
    Float2Fix("float2fix", float2fix),
    Fix2Float("fix2float", fix2float),
    Upload("upload"),
    Copy("download"),
)
