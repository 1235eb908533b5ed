"""Image files from strangers: bounded, whole, or one line that tells what is wrong."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dpu.bounded_file import read_bounded

MAX_IMAGE_BYTES = 256 << 20
"""Largest image file that is read: 64 megapixels (see dpu/__init__.py) as a BMP have 192 MiB."""


def read_image(path: Path) -> np.ndarray:
    """Read an image file as uint8 BGR (height, width, 3), turned upright by its EXIF orientation.

    Raises
    ------
    ValueError
        The file cannot be read, is larger than `MAX_IMAGE_BYTES`, is cut off or is no image.
    """
    try:
        data = read_bounded(path, MAX_IMAGE_BYTES)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    if len(data) > MAX_IMAGE_BYTES:
        raise ValueError(f"image file is larger than {MAX_IMAGE_BYTES >> 20} MiB")
    return decode_image(data)


def decode_image(data: bytes) -> np.ndarray:
    """Return the image in the bytes of a file, uint8 BGR (height, width, 3).

    Raises
    ------
    ValueError
        They are cut off or no image. (OpenCV alone returns a cut-off JPEG with the rest grey,
        which would be classified as if it were whole.)
    """
    if is_cut_off(data):
        raise ValueError("image file is cut off")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # among others, more pixels than dpu/__init__.py allows
        image = None
    if image is None:
        raise ValueError("not an image OpenCV can read" if data else "file is empty")
    return image


def is_cut_off(data: bytes) -> bool:
    """Tell whether a PNG, BMP or JPEG lacks its end; False for what is none of them."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_is_cut_off(data)
    if data.startswith(b"BM"):
        return len(data) < int.from_bytes(data[2:6], "little")
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    # The end mark is looked for behind the headers, which may hold a whole thumbnail.
    position = 2
    while data[position : position + 1] == b"\xff":
        if data[position + 1 : position + 2] == b"\xff":  # a fill byte
            position += 1
            continue
        if data[position + 1 : position + 2] == b"\xda":  # start of scan
            return b"\xff\xd9" not in data[position:]
        size = data[position + 2 : position + 4]
        if len(size) < 2:
            break
        position += 2 + int.from_bytes(size, "big")
    return position >= len(data)


def _png_is_cut_off(data: bytes) -> bool:
    """Step from chunk to chunk by their lengths (RFC 2083, 3.2).

    A chunk that is longer than the file is refused here: OpenCV takes memory before it looks.
    """
    position = 8
    while position + 12 <= len(data):
        kind = data[position + 4 : position + 8]
        position += 12 + int.from_bytes(data[position : position + 4], "big")
        if kind == b"IEND":
            return position > len(data)
    return True
