"""Untrusted image files: bounded, whole, upright, of 8 bits; or one line that says what is wrong.

What a picture's pixels are does not depend on OpenCV's version: the orientation and the depth are
read and applied here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from tutelage.core import MAX_PIXELS
from tutelage.core.files import read_bounded
from tutelage.core.images.jpeg_header import JpegHeader
from tutelage.core.images.picture_header import PictureHeader, read_header

MAX_IMAGE_BYTES = 256 << 20
"""Largest image file that is read: `MAX_PIXELS` as a BMP have 192 MiB."""

_DARKEST = 4096  # of 65536: a 16-bit picture that stays below has values of 12 bits
_FILL = 128  # what libjpeg makes of blocks for which there are no data
_ROUNDING = 2  # of a component, from YCbCr to BGR and back
_FEW_UNITS = 8  # of a JPEG: the last one is more than a tenth of it, and decoding it costs little
# Coded data that stand for visible blocks in any JPEG: no byte is FF, which begins a marker, and
# the first bit is not the 0 that libjpeg reads where there are no more.
_MORE_DATA = b"\xaa" + bytes(pow(3, i, 257) % 255 for i in range(256))


def read_image(path: Path, claim: Callable[[int], None] | None = None) -> np.ndarray:
    """Read an image file as uint8 BGR (height, width, 3), turned upright by its EXIF orientation.

    Parameters
    ----------
    claim : see `decode_image`

    Raises
    ------
    ValueError
        The file cannot be read, is larger than `MAX_IMAGE_BYTES`, is cut off or is not an image.
    """
    try:
        data = read_bounded(path, MAX_IMAGE_BYTES)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    if len(data) > MAX_IMAGE_BYTES:
        raise ValueError(f"image file is larger than {MAX_IMAGE_BYTES >> 20} MiB")
    return decode_image(data, claim)


def decode_image(data: bytes, claim: Callable[[int], None] | None = None) -> np.ndarray:
    """Return the image in the bytes of a file, uint8 BGR (height, width, 3), upright.

    Samples of more than 8 bits are scaled so that the largest value that the file declares (a PGM's
    or PPM's maxval, a TIFF's MaxSampleValue of the form 2^n - 1), else 65535, becomes 255.

    Parameters
    ----------
    claim : called with the number of pixels before memory is taken for them; it may wait

    Raises
    ------
    ValueError
        The bytes are cut off, are not a PNG, JPEG, BMP, WebP, TIFF, PGM or PPM, have more than
        `MAX_PIXELS`, or have 16 bits of which only 12 are used without saying so.
    """
    header = read_header(data)
    pixels = header.width * header.height
    if pixels > MAX_PIXELS:
        raise ValueError(
            f"picture of {header.width}x{header.height} is {pixels / 1e6:.1f} megapixels; "
            f"the limit is {MAX_PIXELS / 1e6:.1f}"
        )
    if header.cut_off:
        raise ValueError("image file is cut off")
    if pixels <= 0:
        raise ValueError("not an image OpenCV can read")
    if claim is not None:
        claim(pixels)
    image = _decoded(data, header)
    if header.jpeg and _breaks_off(data, header.jpeg, image):
        raise ValueError("image file is cut off")
    return _upright(_eight_bits(image, header), header.orientation)


def _decoded(data: bytes, header: PictureHeader) -> np.ndarray:
    """Return the stored pixels, uint8 or uint16; ValueError where OpenCV cannot read them."""
    if header.orientation_at is not None:
        start, stop, replacement = header.orientation_at
        data = data[:start] + replacement + data[stop:]
    depth = cv2.IMREAD_ANYDEPTH if header.deep else 0
    image = _opencv(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION | depth)
    if image is None or image.shape[:2] != (header.height, header.width):
        raise ValueError("not an image OpenCV can read")
    return image


def _opencv(data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _eight_bits(image: np.ndarray, header: PictureHeader) -> np.ndarray:
    """Scale samples to 0..255, linearly and rounded as PNG recommends (PNG 3, 13.12)."""
    if image.dtype == np.uint8 and header.largest is None:
        return image
    if image.dtype == np.uint16 and header.largest is None and image.max() < _DARKEST:
        # Scaled by its own largest value a picture's brightness would follow its content.
        raise ValueError(
            f"16-bit picture with no value above {image.max()}: 12 bits would be nearly black; "
            "scale the values to 16 bits, or write a PGM with its maxval"
        )
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"picture of {image.dtype}; 8 or 16 bits are read")
    return cv2.convertScaleAbs(image, alpha=255 / (header.largest or 65535))


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror an image by its EXIF orientation, 1 to 8 (Exif 2.3, 4.6.4)."""
    if orientation >= 5:
        image = cv2.transpose(image)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)


def _breaks_off(data: bytes, jpeg: JpegHeader, image: np.ndarray) -> bool:
    """Return whether a JPEG's data end before its last block, although an end mark follows.

    The picture is decoded with more data in front of the end: they change it only if they were
    missing. Of large pictures only those that end in the grey that libjpeg fills in are decoded
    twice, so that a loss within the last unit is not noticed. A progressive JPEG has had all its
    scans when it comes here; its last one only sharpens.
    """
    if jpeg.progressive or jpeg.arithmetic:
        return False
    few = jpeg.single_scan and jpeg.units <= _FEW_UNITS
    if not (few or jpeg.components == 4 or _is_tinted(jpeg) or _ends_in_fill(image, jpeg)):
        return False
    longer = data[: jpeg.end] + _MORE_DATA
    if not jpeg.single_scan:  # else libjpeg needs no end, and then does not complain of the data
        longer += data[jpeg.end :]
    again = _opencv(longer, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return again is None or not np.array_equal(image, again)


def _is_tinted(jpeg: JpegHeader) -> bool:
    """Return whether the last unit has one row or column, which takes colour from those beside."""
    (across, down), width, height = jpeg.unit, jpeg.width, jpeg.height
    return (across > 8 and width % across == 1) or (down > 8 and height % down == 1)


def _ends_in_fill(image: np.ndarray, jpeg: JpegHeader) -> bool:
    """Return whether the last pixel is what libjpeg makes of missing data, in all its components
    or, where the last of several scans may be one component's, in one."""
    last = image[-1:, -1:]
    if jpeg.single_scan:
        return set(last.flat) == {_FILL}
    components = np.concatenate([last, cv2.cvtColor(last, cv2.COLOR_BGR2YCrCb)])
    return bool((np.abs(components.astype(int) - _FILL) <= _ROUNDING).any())
