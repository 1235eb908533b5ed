"""Op type knowledge for XIR's graphs: definitions, output shapes (infer_shape), element types."""

from __future__ import annotations

from typing import Any

from tutelage.core.errors import UnsupportedError
from tutelage.dpu.ops.definition import Definition
from tutelage.dpu.ops.registry import INT8_SUFFIX, find


def definition(type_: str) -> Definition | None:
    """Return the definition of the op type of this name, or None if it has none."""
    found = find(type_)
    return found.definition if found is not None and found.name == type_ else None


def infer_dims(op: Any) -> list[int]:
    """Return the dims of `op`'s output.

    Raises
    ------
    UnsupportedError
        The op type has no rule and no attribute `shape`, or the inputs do not fit the op.
    """
    known, kind = find(op.get_type()), op.get_type().removesuffix(INT8_SUFFIX)
    if known is not None and known.source:
        return known.shape(op, [])
    if not op.get_input_num():
        raise UnsupportedError(f"op {op.get_name()!r} ({kind}) has no input")
    dims = op.get_input_tensors_by_name("input")[0].dims if op.get_input_num("input") else []
    if known is not None:  # an attribute `shape` may be out of date
        return known.shape(op, dims)
    if op.has_attr("shape"):
        return list(op.get_attr("shape"))
    raise UnsupportedError(
        f"op {op.get_name()!r} ({kind}): set its output shape by the attribute `shape`"
    )


def infer_dtype(op: Any) -> str:
    """Return the element type of `op`'s output: its attribute `data_type`, else by its type."""
    if op.has_attr("data_type"):
        return str(op.get_attr("data_type")).upper()
    known = find(op.get_type())
    fixed = op.get_type().endswith(INT8_SUFFIX) or (known is not None and known.gives_int8)
    return "XINT8" if fixed else "FLOAT32"
