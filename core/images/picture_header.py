"""Read the header of a picture before decoding it: its size, depth and orientation.

    header = read_header(data)
    header.width, header.height, header.orientation

Nothing here allocates memory for pixels. OpenCV decodes only formats that are recognised here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tutelage.core.images.exif import ORIENTATION, Tag, orientation_of, read_tags
from tutelage.core.images.jpeg_header import JpegHeader, read_jpeg_header

DEFLATE_RATIO = 1032
"""Most bytes that a byte of deflate can expand to (https://zlib.net/zlib_tech.html)."""

_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 1 << 17  # of a PNG or WebP; of the usual 8 KiB each they make a gigabyte
_ANIMATED = 2  # flag of a WebP (RFC 9649, 2.7.1)
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_HEIF = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1", b"ftypavif")
_SPACE = rb"(?:[ \t\r\n\v\f]|#[^\r\n]*[\r\n])+"
_NUMBER = rb"(\d{1,9})"
_PNM = re.compile(
    rb"P([1-6])" + _SPACE + _NUMBER + _SPACE + _NUMBER + rb"(?:" + _SPACE + _NUMBER + rb")?"
)
_PNM_HEADER = 4096  # bytes, including comments


@dataclass(frozen=True)
class PictureHeader:
    """The header of a picture.

    Attributes
    ----------
    width, height : as stored, before the orientation is applied
    orientation : EXIF orientation, 1 (upright) to 8
    deep : whether samples have more than 8 bits
    largest : the largest sample value declared by the file if it does not use all bits, such as
        4095 for 12 bits in 16; None otherwise
    orientation_at : (start, stop, replacement) of the bytes of an orientation that OpenCV would
        apply, or fail on, whatever its flags; None otherwise
    cut_off : the file lacks its end, or has fewer bytes than its pixels need
    jpeg : details of a JPEG; None for other formats
    """

    width: int
    height: int
    orientation: int = 1
    deep: bool = False
    largest: int | None = None
    orientation_at: tuple[int, int, bytes] | None = None
    cut_off: bool = False
    jpeg: JpegHeader | None = None


def read_header(data: bytes) -> PictureHeader:
    """Return the header of a PNG, JPEG, BMP, WebP, TIFF, PGM, PPM or PBM file.

    Raises
    ------
    ValueError
        The file has another format, or its header is malformed.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(_PNG):
        return _png(data)
    if data.startswith(b"BM"):
        return _bmp(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff(data)
    if found := _PNM.match(data[:_PNM_HEADER]):
        return _pnm(found, len(data))
    if data[4:12] in _HEIF:
        raise ValueError("HEIC and AVIF pictures are not supported; convert the file to JPEG")
    raise ValueError("not an image OpenCV can read" if data else "file is empty")


def _jpeg(data: bytes) -> PictureHeader:
    jpeg = read_jpeg_header(data)
    orientation = orientation_of(jpeg.exif) if jpeg.exif else 1
    return PictureHeader(jpeg.width, jpeg.height, orientation, cut_off=jpeg.cut_off, jpeg=jpeg)


def _png(data: bytes) -> PictureHeader:
    """Walk the chunks by their lengths (RFC 2083, 3.2)."""
    if len(data) < 33:
        return PictureHeader(0, 0, cut_off=True)
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    depth, colour = data[24], data[25]
    orientation, compressed, position = 1, 0, 8
    exif: tuple[int, int, bytes] | None = None
    for _ in range(_MAX_CHUNKS):
        if position + 12 > len(data):
            return PictureHeader(width, height, cut_off=True)
        size = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        if kind == b"eXIf":
            orientation = orientation_of(data[position + 8 : position + 8 + size])
            exif = (position, position + 12 + size, b"")
        compressed += size if kind == b"IDAT" else 0
        position += 12 + size
        if kind == b"IEND":
            break
    else:
        raise ValueError(f"PNG has more than {_MAX_CHUNKS} chunks")
    raw = height * (width * depth * _PNG_CHANNELS.get(colour, 1) // 8)
    # OpenCV allocates memory for a chunk that is longer than the file, and for all pixels, before
    # it checks whether there are data for them.
    cut_off = position > len(data) or compressed * DEFLATE_RATIO < raw
    deep = depth == 16
    return PictureHeader(width, height, orientation, deep, orientation_at=exif, cut_off=cut_off)


def _bmp(data: bytes) -> PictureHeader:
    cut_off = len(data) < int.from_bytes(data[2:6], "little")
    if data[14:18] == b"\x0c\0\0\0":  # OS/2
        width, height = (int.from_bytes(data[at : at + 2], "little") for at in (18, 20))
    else:  # a negative height means that the first row is the top one
        width, height = (int.from_bytes(data[a : a + 4], "little", signed=True) for a in (18, 22))
    return PictureHeader(width, abs(height), cut_off=cut_off)


def _webp(data: bytes) -> PictureHeader:
    """Walk the chunks (RFC 9649, 2.3)."""
    end = 8 + int.from_bytes(data[4:8], "little")
    size, orientation, position = (0, 0), 1, 12
    for _ in range(_MAX_CHUNKS):
        if position + 8 > min(end, len(data)):
            break
        kind = data[position : position + 4]
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        body = data[position + 8 : position + 8 + (length if kind == b"EXIF" else 10)]
        if kind == b"EXIF":
            orientation = orientation_of(body.removeprefix(b"Exif\0\0"))
        elif size == (0, 0):
            if kind == b"VP8X" and body[:1] and body[0] & _ANIMATED:  # OpenCV 4.5 cannot read it
                raise ValueError("animated WebP files are not supported; save a frame as an image")
            size = _webp_size(kind, body)
        position += 8 + length + length % 2
    return PictureHeader(*size, orientation, cut_off=end > len(data))


def _webp_size(kind: bytes, body: bytes) -> tuple[int, int]:
    """Return (width, height) from a chunk that contains them, else (0, 0)."""
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8 ":
        sides = int.from_bytes(body[6:8], "little"), int.from_bytes(body[8:10], "little")
        return sides[0] & 0x3FFF, sides[1] & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return 0, 0


_WIDTH, _HEIGHT, _BITS, _MAX_SAMPLE, _SAMPLE_FORMAT = 256, 257, 258, 281, 339


def _tiff(data: bytes) -> PictureHeader:
    try:
        order, tags = read_tags(data)
    except ValueError:
        return PictureHeader(0, 0, cut_off=True)

    def values(tag: int, default: int) -> tuple[int, ...]:
        return tags.get(tag, Tag((default,), 0)).values

    bits = set(values(_BITS, 1))
    if set(values(_SAMPLE_FORMAT, 1)) != {1} or not bits <= {1, 2, 4, 8, 16}:
        shown = ", ".join(str(b) for b in sorted(bits))
        raise ValueError(
            f"TIFF has samples of {shown} bits, floating point or signed; "
            "only unsigned integers of 8 or 16 bits are supported"
        )
    deep = 16 in bits
    # Only a declared value of the form 2^n - 1 gives the number of bits. Others may be the largest
    # value in this particular picture, which must not change its brightness.
    largest = values(_MAX_SAMPLE, 0)[0]
    declared = deep and 255 < largest < 65535 and largest & (largest + 1) == 0
    place = tags.get(ORIENTATION)
    upright = b"\1\0" if order == "<" else b"\0\1"
    return PictureHeader(
        values(_WIDTH, 0)[0],
        values(_HEIGHT, 0)[0],
        orientation_of(data),
        deep,
        largest if declared else None,
        (place.offset, place.offset + 2, upright) if place else None,
    )


def _pnm(found: re.Match[bytes], size: int) -> PictureHeader:
    kind, width, height = (int(found[i]) for i in (1, 2, 3))
    if kind in (1, 4):  # bits
        needed = height * ((width + 7) // 8) if kind == 4 else 0
        # A PBM has no largest value: the pattern's fourth number may be in the pixels.
        return PictureHeader(width, height, cut_off=size < found.end(3) + 1 + needed)
    if found[4] is None:
        raise ValueError("not an image OpenCV can read")
    largest = int(found[4])
    if not 0 < largest < 65536:
        raise ValueError(f"PGM or PPM has maxval {largest}; it must be 1 to 65535")
    deep, binary = largest > 255, kind in (5, 6)
    needed = width * height * (1 + deep) * (3 if kind == 6 else 1) if binary else 0
    # OpenCV scales 8-bit text formats itself.
    declared = largest not in (255, 65535) and (deep or binary)
    return PictureHeader(
        width,
        height,
        deep=deep,
        largest=largest if declared else None,
        cut_off=size < found.end() + 1 + needed if binary else False,
    )
