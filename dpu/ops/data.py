"""Inputs and constants of a graph."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tutelage.core.errors import DpuError, UnsupportedError, XmodelError
from tutelage.core.fixed_point import Array
from tutelage.dpu.ops.definition import REQUIRED, Attribute, Definition
from tutelage.dpu.ops.registry import OpType, register

_VALUES: tuple[Attribute, ...] = (
    ("shape", REQUIRED, "int32_vec_value", [], 0),
    ("data_type", REQUIRED, "string_value", "", 1),
)


class Data(OpType):
    """An input of the graph, whose values the caller provides."""

    source = "input"
    definition: Definition | None = Definition((), _VALUES)

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        return list(op.get_attr("shape"))


class Placeholder(Data):
    """An input of the graph, as other tools name it."""

    definition = None


class Const(Data):
    """A constant, whose values are in the file."""

    source = "constant"
    names_subgraph = False
    definition = Definition((), (*_VALUES, ("data", REQUIRED, "bytes_value", b"", 0)))


register(Data("data"), Placeholder("placeholder"), Const("const"))


_CONST_TYPES = {
    name: np.dtype(name)
    for name in ("float32", "float64", *(f"{s}int{n}" for s in ("", "u") for n in (8, 16, 32, 64)))
}


def const_array(op: Any) -> Array:
    """Return the values of a `const` op, from its data_type, shape and data.

    Raises
    ------
    UnsupportedError
        The data type is unknown, or the number of bytes does not match the shape.
    """
    kind = str(op.get_attr("data_type")).lower().lstrip("x")
    if kind not in _CONST_TYPES:
        raise UnsupportedError(f"op {op.get_name()!r}: data type {kind!r} is not implemented")
    data, dims = bytes(op.get_attr("data")), op.get_output_tensor().dims
    dtype = _CONST_TYPES[kind]
    if len(data) != math.prod(dims) * dtype.itemsize:
        raise UnsupportedError(f"op {op.get_name()!r}: {len(data)} bytes do not match {dims}")
    return np.frombuffer(data, dtype).reshape(dims)


def constant(graph: Any, op: Any) -> Array:
    """Return the values of a const or const-fix op.

    A compiled file keeps the weights of its DPU part in the DPU subgraph's
    ``reg_id_to_parameter_value``, at the tensor's ``ddr_addr``, in the
    tensor's own order (measured on files of Vitis AI 2.0, 2.5 and 3.0).

    Raises
    ------
    XmodelError
        The bytes are missing or too few.
    UnsupportedError
        The data type is not implemented.
    """
    tensor = op.get_output_tensor()
    if op.has_attr("data") and op.get_attr("data"):
        return const_array(op)
    subgraph = graph.get_leaf_subgraph(op)
    while not subgraph.has_attr("reg_id_to_parameter_value"):
        if subgraph.is_root:
            raise XmodelError(f"constant {op.get_name()!r} has no data")
        subgraph = subgraph.get_parent()
    try:
        region = f"REG_{tensor.get_attr('reg_id')}"
        data = subgraph.get_attr("reg_id_to_parameter_value")[region]
        address = tensor.get_attr("ddr_addr")
    except (KeyError, DpuError):
        raise XmodelError(f"constant {op.get_name()!r} has no address in the parameters") from None
    count = math.prod(tensor.dims)
    if not 0 <= address <= len(data) - count:
        raise XmodelError(f"constant {op.get_name()!r} is beyond the end of {region}")
    if not tensor.is_int8:
        raise UnsupportedError(f"constant {op.get_name()!r} is {tensor.dtype}, not int8")
    return np.frombuffer(data, np.int8, count, address).reshape(tensor.dims)


MAX_NUMBERS = 8
"""Most numbers that are read as a shape, since tensors of files have no more axes."""


def numbers_of(op: Any) -> list[int] | None:
    """Return the numbers in an op of constants, as XIR's shape inference reads them.

    None if it is not a short list of constants. vai_q_pytorch writes a shape as a stack of
        constants; XIR stores it as `shape_info`.
    """
    tensor = op.get_output_tensor()
    if tensor.has_attr("shape_info"):
        return [int(value) for value in tensor.get_attr("shape_info")]
    sources = op.get_input_ops_by_name("input") if op.get_type() == "stack" else [op]
    if len(sources) > MAX_NUMBERS or any(
        source.get_type() != "const" or source.get_output_tensor().get_element_num() > MAX_NUMBERS
        for source in sources
    ):
        return None
    return [int(value) for source in sources for value in const_array(source).ravel()]


def given_numbers(op: Any, name: str) -> list[int] | None:
    """Return the numbers in the constants of argument `name`, or else in its attribute, or None."""
    if op.get_input_num(name):
        return numbers_of(op.get_input_op(name))
    if not op.has_attr(name) or op.get_attr(name) is None:
        return None
    return [int(v) for v in op.get_attr(name)]
