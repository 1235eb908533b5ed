"""Decode untrusted image files: bounded, complete, upright, 8 bits; else raise a one-line error.

The pixels do not depend on OpenCV's version: the orientation and the depth are read and applied
here.
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
"""Largest image file that is read: `MAX_PIXELS` as a BMP take 192 MiB."""

_DARKEST = 4096  # of 65536: a 16-bit picture that stays below it has 12-bit values
_FILL = 128  # the value that libjpeg gives to blocks without data
_ROUNDING = 2  # error of a component converted from YCbCr to BGR and back
_FEW_UNITS = 8  # of a JPEG: the last one is more than a tenth of it, and decoding it costs little
# Coded data that decode to visible blocks in any JPEG: no byte is FF, which begins a marker, and
# the first bit is not the 0 that libjpeg reads past the end of the data.
_MORE_DATA = b"\xaa" + bytes(pow(3, i, 257) % 255 for i in range(256))


def read_image(path: Path, claim: Callable[[int], None] | None = None) -> np.ndarray:
    """Read an image file as uint8 BGR (height, width, 3), rotated upright by its EXIF orientation.

    Parameters
    ----------
    claim : see `decode_image`

    Raises
    ------
    ValueError
        The file cannot be read, is larger than `MAX_IMAGE_BYTES`, is truncated or is not an image.
    """
    try:
        data = read_bounded(path, MAX_IMAGE_BYTES)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    if len(data) > MAX_IMAGE_BYTES:
        raise ValueError(f"image file is larger than {MAX_IMAGE_BYTES >> 20} MiB")
    return decode_image(data, claim)


def decode_image(data: bytes, claim: Callable[[int], None] | None = None) -> np.ndarray:
    """Decode the bytes of an image file to uint8 BGR (height, width, 3), upright.

    Samples of more than 8 bits are scaled so that the largest value declared by the file (a PGM's
    or PPM's maxval, a TIFF's MaxSampleValue of the form 2^n - 1), otherwise 65535, becomes 255.

    Parameters
    ----------
    claim : called with the number of pixels before memory is allocated for them; it may block

    Raises
    ------
    ValueError
        The data are truncated, are not a PNG, JPEG, BMP, WebP, TIFF, PGM or PPM, have more than
        `MAX_PIXELS` pixels, or use only 12 of their 16 bits without declaring it.
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
    """Return the stored pixels, uint8 or uint16; raise ValueError if OpenCV cannot read them."""
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
        # Scaling by the largest value present would make the brightness depend on the content.
        raise ValueError(
            f"16-bit picture with no value above {image.max()}: 12-bit values would be nearly "
            "black; scale the values to 16 bits, or write a PGM with its maxval"
        )
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"picture has {image.dtype} samples; only 8 and 16 bits are supported")
    return cv2.convertScaleAbs(image, alpha=255 / (header.largest or 65535))


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate and mirror an image by its EXIF orientation, 1 to 8 (Exif 2.3, 4.6.4)."""
    if orientation >= 5:
        image = cv2.transpose(image)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)


def _breaks_off(data: bytes, jpeg: JpegHeader, image: np.ndarray) -> bool:
    """Return whether a JPEG's data end before its last block, although an end marker follows.

    The picture is decoded again with extra data inserted before the end: they change the result
    only if data were missing. Large pictures are decoded twice only if they end in the grey that
    libjpeg fills in, so a loss within the last unit goes unnoticed. All scans of a progressive JPEG
    are present when this is called; its last scan only sharpens.
    """
    if jpeg.progressive or jpeg.arithmetic:
        return False
    few = jpeg.single_scan and jpeg.units <= _FEW_UNITS
    if not (few or jpeg.components == 4 or _is_tinted(jpeg) or _ends_in_fill(image, jpeg)):
        return False
    longer = data[: jpeg.end] + _MORE_DATA
    if not jpeg.single_scan:  # without an end marker libjpeg does not complain about the extra data
        longer += data[jpeg.end :]
    again = _opencv(longer, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return again is None or not np.array_equal(image, again)


def _is_tinted(jpeg: JpegHeader) -> bool:
    """Return whether the last unit has only one row or column, coloured by its neighbours."""
    (across, down), width, height = jpeg.unit, jpeg.width, jpeg.height
    return (across > 8 and width % across == 1) or (down > 8 and height % down == 1)


def _ends_in_fill(image: np.ndarray, jpeg: JpegHeader) -> bool:
    """Return whether the last pixel has libjpeg's fill value in all its components, or in any one
    if there are several scans, since the last scan may contain a single component."""
    last = image[-1:, -1:]
    if jpeg.single_scan:
        return set(last.flat) == {_FILL}
    components = np.concatenate([last, cv2.cvtColor(last, cv2.COLOR_BGR2YCrCb)])
    return bool((np.abs(components.astype(int) - _FILL) <= _ROUNDING).any())
