"""Edits of a file's bytes, drawn by Hypothesis: flips, cuts, repeats, insertions."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

_PLACE = st.floats(0, 1, exclude_max=True) | st.floats(0, 0.02)
_PIECES = st.binary(min_size=1, max_size=8) | st.sampled_from(
    [b"\xff" * 8, b"\0" * 16, b"\xff\xff\xff\xff\x0f", b"\x80" * 12 + b"\1", b"[" * 99]
)
_EDIT = st.tuples(
    st.sampled_from(["flip", "put", "insert", "delete", "double", "cut"]), _PLACE, _PIECES
)

EDITS: st.SearchStrategy[Any] = st.lists(_EDIT, min_size=1, max_size=6)
"""Some edits in a row, for `edited`."""


def edited(data: bytes, edits: Any) -> bytes:
    """Return `data` after applying the edits in order."""
    result = bytearray(data)
    for kind, place, piece in edits:
        at = int(place * len(result))
        if kind == "flip" and result:
            result[at] ^= piece[0] or 1
        elif kind == "put":
            result[at : at + len(piece)] = piece
        elif kind == "insert":
            result[at:at] = piece
        elif kind == "delete":
            del result[at : at + 16 * len(piece)]
        elif kind == "double":
            result[at:at] = result[at : at + 64 * len(piece)]
        elif kind == "cut":
            del result[at:]
    return bytes(result)
