"""A quick check of an .xmodel file before it is passed to AMD's library."""

from __future__ import annotations

import mmap
from pathlib import Path

# Top-level fields of serial_v2.Graph: graph_name, op_node, subg_root, graph_attr, op_defs.
_GRAPH_FIELDS = {1, 5, 10, 11, 101}
_LENGTH_DELIMITED = 2
# AMD's largest public models have a few thousand.
_MOST_FIELDS = 100_000


def problem_of(path: Path) -> str | None:
    """Return the reason why a file is not an .xmodel; None if it looks like one.

    The board's xir ends the whole process on an invalid file. The frame of the protobuf message is
    therefore checked first: every top-level field must be one of Graph's and end inside the file.
    Payloads are not read.
    """
    try:
        size = path.stat().st_size
        if path.is_dir():
            return "is a directory, not an .xmodel"
        if size == 0:
            return "is empty, not an .xmodel"
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _walk(data, size)
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def _walk(data: mmap.mmap, size: int) -> str | None:
    position = 0
    for _ in range(_MOST_FIELDS):
        if position == size:
            return None
        try:
            tag, position = _varint(data, position)
            if tag >> 3 not in _GRAPH_FIELDS or tag & 7 != _LENGTH_DELIMITED:
                return "is not an .xmodel"
            length, position = _varint(data, position)
        except (IndexError, ValueError):
            return "is truncated or corrupt"
        position += length
        if position > size:
            return "is truncated or corrupt"
    return f"has more than {_MOST_FIELDS} parts; it is not a model"


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    """Decode a base-128 number; return it and the next position.

    Raises
    ------
    IndexError
        The file ends inside the number.
    ValueError
        The number has more than ten bytes.
    """
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("varint of more than ten bytes")
