"""Read and write the bytes of an .xmodel, with bounds on the cost of untrusted files.

The file is one protobuf message (dpu/xmodel/schema.py). The protobuf runtime parses
it; this module bounds its input: a few bytes of empty sub-messages become objects
of some hundred bytes each, so the fields are counted on the wire before any object
is built.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from tutelage.core.errors import XmodelError
from tutelage.core.files import read_bounded, write_file
from tutelage.dpu.xmodel.schema import GraphProto

MAX_FILE_BYTES = 1 << 30
"""Largest file that is read. All files of AMD's model zoo are below 300 MB."""

MAX_FIELDS = 1_000_000
"""Most fields, and numbers in packed lists, in one file; a DenseNet-201 compiled for the ZCU104 has
about 60,000."""

_CHECK_ABOVE_BYTES = 1 << 16
"""Files up to this size cannot have too many fields and are parsed without counting."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_BYTES_OF = {FieldDescriptor.CPPTYPE_FLOAT: 4, FieldDescriptor.CPPTYPE_DOUBLE: 8}
"""Size of packed numbers; integers may have one byte."""


def read_graph(path: str | os.PathLike[str]) -> Any:
    """Parse the file at `path` into a ``serial_v2.Graph`` message.

    Raises
    ------
    XmodelError
        The file cannot be read, is empty, is larger than `MAX_FILE_BYTES`, has
        more than `MAX_FIELDS` fields, or is not an .xmodel.
    """
    data = _read_file(Path(path))
    graph = GraphProto()
    try:
        if len(data) > _CHECK_ABOVE_BYTES:
            _count_fields(memoryview(data), _graph_descriptor(), 0, path)
        graph.ParseFromString(data)
    except (DecodeError, RecursionError, _WireError):
        raise XmodelError(
            f"{path}: not an .xmodel, or truncated (the protobuf ends early)"
        ) from None
    if not graph.op_node:
        raise XmodelError(f"{path}: not an .xmodel (it has no ops)")
    if not graph.HasField("subg_root"):
        raise XmodelError(f"{path}: truncated .xmodel (the root subgraph is missing)")
    return graph


def write_graph(graph: Message, path: str | os.PathLike[str]) -> None:
    """Write `graph` to `path`, atomically, with map entries in a fixed order.

    Raises
    ------
    XmodelError
        The file cannot be written.
    """
    try:
        write_file(Path(path), graph.SerializeToString(deterministic=True))
    except OSError as error:
        raise XmodelError(f"{path}: cannot write: {error.strerror}") from None


def _read_file(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise XmodelError(f"{path}: a directory, not an .xmodel")
        data = read_bounded(path, MAX_FILE_BYTES)
    except OSError as error:
        raise XmodelError(f"{path}: {error.strerror}") from None
    if not data:
        raise XmodelError(f"{path}: empty file")
    if len(data) > MAX_FILE_BYTES:
        raise XmodelError(f"{path}: larger than the limit of {MAX_FILE_BYTES >> 20} MiB")
    return data


class _WireError(Exception):
    """The bytes are not well-formed protobuf."""


def _graph_descriptor() -> Any:
    return GraphProto.DESCRIPTOR  # type: ignore[attr-defined]


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _WireError
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _count_fields(data: memoryview, descriptor: Any, count: int, path: object) -> int:
    """Count the fields of a message and of its sub-messages; stop beyond `MAX_FIELDS`."""
    at = 0
    while at < len(data):
        count += 1
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == _VARINT:
            _, at = _varint(data, at)
        elif wire == _FIXED64:
            at += 8
        elif wire == _FIXED32:
            at += 4
        elif wire == _BYTES:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise _WireError
            field = descriptor.fields_by_number.get(tag >> 3)
            count = _count_inside(data[at : at + length], field, count, path)
            at += length
        else:
            raise _WireError
        if at > len(data):
            raise _WireError
        if count > MAX_FIELDS:
            raise XmodelError(f"{path}: has more than {MAX_FIELDS:,} fields")
    return count


def _count_inside(data: memoryview, field: Any, count: int, path: object) -> int:
    """Count the fields of a message, or the numbers of a packed list, of integers the bytes."""
    if field is None or field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return count
    if field.message_type is not None:
        return _count_fields(data, field.message_type, count, path)
    return count + len(data) // _BYTES_OF.get(field.cpp_type, 1)
