"""Parse a JPEG's headers and scans without decoding it: size, EXIF and completeness.

libjpeg, and so OpenCV, decodes a truncated JPEG to a picture whose rest is grey. This module finds
what is visible in the markers alone: a missing end, missing scans or restart intervals, fewer bits
than the blocks need. `tutelage.core.images.decoder` finds the other cases.

Source: ITU-T T.81 (B.1 and B.2: markers, A.2: blocks, G.1: progressive scans).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_START, _END, _SCAN, _RESTART_INTERVAL, _EXIF = 0xD8, 0xD9, 0xDA, 0xDD, 0xE1
_SEQUENTIAL, _PROGRESSIVE, _ARITHMETIC = (0xC0, 0xC1, 0xC9), (0xC2, 0xCA), (0xC9, 0xCA)
_STANDALONE = {0x01, *range(0xD0, 0xD8)}
# Excluding FF00, which is a byte FF in entropy-coded data, and after a scan restart markers.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_READ = {*_SEQUENTIAL, *_PROGRESSIVE, _SCAN, _RESTART_INTERVAL, _EXIF}
_MAX_SEGMENTS = 10_000  # profiles and previews are split into segments of 64 KiB
_MAX_SCANS = 100  # each visits all blocks: a few bytes could keep a decoder busy for minutes
_ALL = (1 << 64) - 1  # the 64 coefficients of a block


@dataclass
class JpegHeader:
    """The headers of a JPEG.

    Attributes
    ----------
    width, height : as stored, before the orientation is applied
    exif : the TIFF structure of its EXIF, empty if there is none
    components : 1 for grey, 3 for colour, 4 for print colours
    single_scan : sequential, Huffman-coded, all components in one scan
    progressive, arithmetic : coding mode
    restart_interval : units between two restart markers, 0 without them
    end : offset of the end marker, -1 if there is none
    cut_off : whether the markers show that the file is truncated
    """

    width: int = 0
    height: int = 0
    exif: bytes = b""
    components: int = 0
    single_scan: bool = False
    progressive: bool = False
    arithmetic: bool = False
    end: int = -1
    cut_off: bool = False
    restart_interval: int = 0
    _factors: dict[int, tuple[int, int]] = field(default_factory=dict)
    _complete: dict[int, int] = field(default_factory=dict)  # component -> its coefficients

    def take_frame(self, kind: int, body: bytes) -> None:
        """Read a frame header (SOF); raise ValueError if it is malformed."""
        count = body[5] if len(body) > 5 else 0
        if self.components or not count or len(body) < 6 + 3 * count:
            raise ValueError("not an image OpenCV can read")
        if body[0] != 8:
            raise ValueError(f"JPEG of {body[0]} bits; only 8 bits are supported")
        self.height, self.width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
        self.components = count
        self.progressive, self.arithmetic = kind in _PROGRESSIVE, kind in _ARITHMETIC
        for at in range(6, 6 + 3 * count, 3):
            self._factors[body[at]] = body[at + 1] >> 4 or 1, body[at + 1] & 15 or 1

    def take_scan(self, body: bytes, data: bytes, start: int, end: int) -> None:
        """Read a scan: the `body` of its header, and its coded bits in data[start:end]."""
        count = body[0] if body else 0
        if not self.components or len(body) < 4 + 2 * count:
            raise ValueError("not an image OpenCV can read")
        names = [body[at] for at in range(1, 1 + 2 * count, 2)]
        first, last, bits = 0, 63, 0
        if self.progressive:
            first, last, bits = body[1 + 2 * count], body[2 + 2 * count], body[3 + 2 * count] & 15
        if not first <= last < 64:
            raise ValueError("not an image OpenCV can read")
        intervals, blocks = self._size_of(names)
        # A block has at least one bit for its mean and, in a sequential scan, one for its end.
        least = blocks * (1 if self.progressive else 2)
        if not self.arithmetic and first == 0 and 8 * (end - start) < least:
            self.cut_off = True
        if self.restart_interval:
            wanted = -(-intervals // self.restart_interval) - 1
            self.cut_off |= sum(1 for _ in _RESTART.finditer(data, start, end)) < wanted
        if bits == 0:  # this scan has the least significant bit
            for name in names:
                self._complete[name] = self._complete.get(name, 0) | (2 << last) - (1 << first)

    @property
    def unit(self) -> tuple[int, int]:
        """Width and height of a minimum coded unit, pixels: it has blocks of all components."""
        across, down = map(max, zip(*self._factors.values(), strict=True))
        return 8 * across, 8 * down

    @property
    def units(self) -> int:
        """Number of minimum coded units in the picture."""
        across, down = self.unit
        return -(-self.width // across) * -(-self.height // down)

    def _size_of(self, names: list[int]) -> tuple[int, int]:
        """Return the number of units that restart intervals count, and of blocks, in a scan."""
        try:
            factors = [self._factors[name] for name in names]
        except KeyError:
            raise ValueError("not an image OpenCV can read") from None
        widest, highest = (side // 8 for side in self.unit)
        if len(names) == 1:
            across, down = factors[0]
            columns, rows = -(-self.width * across // widest), -(-self.height * down // highest)
            blocks = -(-columns // 8) * -(-rows // 8)
            return blocks, blocks
        return self.units, self.units * sum(across * down for across, down in factors)

    def finish(self, scans: int) -> None:
        """Set `single_scan` and `cut_off` once all scans are read."""
        self.single_scan = scans == 1 and not self.progressive and not self.arithmetic
        missing = any(self._complete.get(name) != _ALL for name in self._factors)
        self.cut_off |= self.end < 0 or not scans or missing


def read_jpeg_header(data: bytes) -> JpegHeader:
    """Read the headers of a JPEG and skip over its scans.

    Raises
    ------
    ValueError
        There is no frame header before the first scan, a header is malformed, or there are too
                    many scans.
    """
    header = JpegHeader()
    scans = 0
    for marker, start, stop, end in _segments(data, header):
        if stop > len(data):
            break
        body = data[start:stop]
        if marker in _SEQUENTIAL or marker in _PROGRESSIVE:
            header.take_frame(marker, body)
        elif marker == _RESTART_INTERVAL:
            header.restart_interval = int.from_bytes(body[:2], "big")
        elif marker == _EXIF and not header.exif and body.startswith(b"Exif\0\0"):
            header.exif = body[6:]
        elif marker == _SCAN:
            scans += 1
            if scans > _MAX_SCANS:
                raise ValueError(f"JPEG has more than {_MAX_SCANS} scans")
            header.take_scan(body, data, stop, end)
    header.finish(scans)
    return header


def _segments(data: bytes, header: JpegHeader) -> Iterator[tuple[int, int, int, int]]:
    """Yield (marker, start, stop, end) of each segment in `_READ`, and set `header.end`.

    The body is data[start:stop]; the coded data of a scan are data[stop:end].
    """
    position = 2
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, position)
        if found is None:
            return
        marker, position = found[0][1], found.end()
        if marker == _END:
            header.end = position - 2
            return
        if marker == _START:
            raise ValueError("not an image OpenCV can read")
        if marker in _STANDALONE:
            continue
        stop = position + max(2, int.from_bytes(data[position : position + 2], "big"))
        end = stop
        if marker == _SCAN:
            after = _MARKER_AFTER_SCAN.search(data, stop)
            end = after.start() if after else len(data)
        if marker in _READ:
            yield marker, position + 2, stop, end
        position = end
    raise ValueError(f"JPEG has more than {_MAX_SEGMENTS} segments")
