"""Read TIFF tag tables: the EXIF orientation of any picture, and the header of TIFF files.

Source: TIFF 6.0, section 2, and Exif 2.3, 4.6.4 (Orientation).
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass

ORIENTATION = 274
_FORMS = {3: "H", 4: "I"}  # struct formats of the integer types SHORT and LONG
_MAX_VALUES = 8  # per tag; BitsPerSample has one for each channel


@dataclass(frozen=True)
class Tag:
    """The values of a tag, and their offset in the data."""

    values: tuple[int, ...]
    offset: int


def read_tags(data: bytes) -> tuple[str, dict[int, Tag]]:
    """Return the byte order ("<" or ">") and the integer tags of the first table.

    Parameters
    ----------
    data : a TIFF file, or the TIFF structure of an EXIF block

    Raises
    ------
    ValueError
        The data are neither, or are truncated.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        raise ValueError("not a TIFF structure")
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        heads = [struct.unpack_from(f"{order}HHI", data, start + 2 + 12 * i) for i in range(count)]
    except struct.error:
        raise ValueError("truncated within its tags") from None
    tags: dict[int, Tag] = {}
    for i, (number, kind, length) in enumerate(heads):
        if kind in _FORMS and 0 < length <= _MAX_VALUES:
            with suppress(struct.error):  # the tag's offset points outside the data
                tags.setdefault(number, _tag(data, order, start + 10 + 12 * i, kind, length))
    return order, tags


def _tag(data: bytes, order: str, offset: int, kind: int, length: int) -> Tag:
    form = f"{order}{length}{_FORMS[kind]}"
    if struct.calcsize(form) > 4:
        (offset,) = struct.unpack_from(f"{order}I", data, offset)
    return Tag(struct.unpack_from(form, data, offset), offset)


def orientation_of(exif: bytes) -> int:
    """Return the orientation in an EXIF block, 1 to 8; 1 if it is malformed or absent.

    Parameters
    ----------
    exif : the TIFF structure, without the prefix "Exif" and two zero bytes
    """
    try:
        tag = read_tags(exif)[1].get(ORIENTATION)
    except ValueError:
        return 1
    return tag.values[0] if tag and 1 <= tag.values[0] <= 8 else 1
