"""Writer of ONNX files for the fast engine: the few messages that its graphs need.

Importing the `onnx` package takes longer than everything else the engine does for a small network.
Field numbers and codes: onnx.proto of ONNX 1.12 (Apache-2.0); a test reads the files with `onnx`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tutelage.core.fixed_point import Array

OPSET, _IR_VERSION = 17, 8

ELEMENT_TYPES = {np.float32: 1, np.uint8: 2, np.int8: 3, np.int64: 7, np.float64: 11}
"""Codes of element types (TensorProto.DataType), also for the attribute `to` of Cast."""

_INT, _FLOAT, _STRING, _INTS = 2, 1, 3, 7  # AttributeProto.AttributeType


def model(
    nodes: Iterable[bytes], constants: Iterable[bytes], inputs: Iterable[bytes],
    outputs: Iterable[bytes],
) -> bytes:  # fmt: skip
    """Return a whole file, given parts made by the functions below."""
    graph = b"".join((
        *(_bytes(1, part) for part in nodes), _bytes(2, b"graph"),
        *(_bytes(5, part) for part in constants), *(_bytes(11, part) for part in inputs),
        *(_bytes(12, part) for part in outputs),
    ))  # fmt: skip
    return _int(1, _IR_VERSION) + _bytes(7, graph) + _bytes(8, _int(2, OPSET))


def node(kind: str, inputs: Sequence[str], output: str, **attrs: Any) -> bytes:
    """Return a node with one output; attributes are integers, lists of them, floats or strings."""
    parts = [_bytes(1, name.encode()) for name in inputs]
    parts += [_bytes(2, output.encode()), _bytes(4, kind.encode())]
    parts += [_bytes(5, _attribute(name, value)) for name, value in attrs.items()]
    return b"".join(parts)


def tensor(array: Array, name: str) -> bytes:
    """Return a constant of one of the `ELEMENT_TYPES`."""
    kind = _int(2, ELEMENT_TYPES[array.dtype.type])
    dims, values = _ints(1, array.shape), array.astype(array.dtype.newbyteorder("<")).tobytes()
    return dims + kind + _bytes(8, name.encode()) + _bytes(9, values)


def value(name: str, dtype: Any, dims: Sequence[int]) -> bytes:
    """Return an input or output of the graph; its first axis, a free batch, is not in `dims`."""
    axes = [_bytes(2, b"N"), *(_int(1, size) for size in dims)]
    shape = b"".join(_bytes(1, axis) for axis in axes)
    kind = _int(1, ELEMENT_TYPES[dtype]) + _bytes(2, shape)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, kind))


def _attribute(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        kind, field = _STRING, _bytes(4, value.encode())
    elif isinstance(value, float):
        kind, field = _FLOAT, b"\x15" + struct.pack("<f", value)  # field 2, four bytes
    elif isinstance(value, Iterable):
        kind, field = _INTS, _ints(8, value)
    else:
        kind, field = _INT, _int(3, value)
    return _bytes(1, name.encode()) + field + _int(20, kind)


def _ints(number: int, values: Iterable[int]) -> bytes:
    return b"".join(_int(number, value) for value in values)


def _int(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(int(value) % (1 << 64))


def _bytes(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
