"""TIFF's tables of tags: EXIF's orientation in any picture, and the header of TIFF files.

Source: TIFF 6.0, section 2, and Exif 2.3, 4.6.4 (Orientation).
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass

ORIENTATION = 274
_FORMS = {3: "H", 4: "I"}  # of the types for whole numbers, SHORT and LONG
_MAX_VALUES = 8  # of one tag; bits per sample has one for each channel


@dataclass(frozen=True)
class Tag:
    """The values of a tag, and where in the data they begin."""

    values: tuple[int, ...]
    offset: int


def read_tags(data: bytes) -> tuple[str, dict[int, Tag]]:
    """Return the byte order ("<" or ">") and the first table's tags of whole numbers.

    Parameters
    ----------
    data : a TIFF file, or the TIFF structure that EXIF is

    Raises
    ------
    ValueError
        It is neither, or is cut off.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        raise ValueError("not a TIFF structure")
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        heads = [struct.unpack_from(f"{order}HHI", data, start + 2 + 12 * i) for i in range(count)]
    except struct.error:
        raise ValueError("cut off within its tags") from None
    tags: dict[int, Tag] = {}
    for i, (number, kind, length) in enumerate(heads):
        if kind in _FORMS and 0 < length <= _MAX_VALUES:
            with suppress(struct.error):  # a tag whose values are elsewhere and not there
                tags.setdefault(number, _tag(data, order, start + 10 + 12 * i, kind, length))
    return order, tags


def _tag(data: bytes, order: str, offset: int, kind: int, length: int) -> Tag:
    form = f"{order}{length}{_FORMS[kind]}"
    if struct.calcsize(form) > 4:
        (offset,) = struct.unpack_from(f"{order}I", data, offset)
    return Tag(struct.unpack_from(form, data, offset), offset)


def orientation_of(exif: bytes) -> int:
    """Return the orientation that an EXIF block gives, 1 to 8; 1 where it is malformed or absent.

    Parameters
    ----------
    exif : the TIFF structure, without "Exif" and two zeros in front of it
    """
    try:
        tag = read_tags(exif)[1].get(ORIENTATION)
    except ValueError:
        return 1
    return tag.values[0] if tag and 1 <= tag.values[0] <= 8 else 1
