"""TIFF's tables of tags: EXIF's orientation in any picture, and the header of TIFF files.

Source: TIFF 6.0, section 2, and Exif 2.3, 4.6.4 (Orientation).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

ORIENTATION = 274
_SHORT, _LONG = 3, 4
_SIZES = {_SHORT: 2, _LONG: 4}
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
        entries = [
            struct.unpack_from(f"{order}HHI", data, start + 2 + 12 * i) for i in range(count)
        ]
        tags: dict[int, Tag] = {}
        for i, (tag, kind, length) in enumerate(entries):
            if kind in _SIZES and 0 < length <= _MAX_VALUES:
                offset = start + 2 + 12 * i + 8
                if length * _SIZES[kind] > 4:
                    (offset,) = struct.unpack_from(f"{order}I", data, offset)
                form = f"{order}{length}{'H' if kind == _SHORT else 'I'}"
                tags.setdefault(tag, Tag(struct.unpack_from(form, data, offset), offset))
    except struct.error:
        raise ValueError("cut off within its tags") from None
    return order, tags


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
