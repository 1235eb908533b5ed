"""Splitter of a byte stream into JPEGs, for standard input and MJPEG cameras."""

from __future__ import annotations

from collections.abc import Iterator

LARGEST_JPEG = 32 << 20  # bytes; longer data without an end marker is discarded
_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_SCAN = 0xDA
_FREE = {*range(0xE0, 0xF0), 0xFE}  # application segments and comments, which may contain anything
_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length (ITU-T T.81, B.1)


class JpegSplitter:
    """Splitter of a byte stream into JPEGs; other bytes between them are skipped.

    Header segments are skipped by their lengths, since a thumbnail in them has an end marker of
    its own; after the start of the scan, the first end marker counts (ITU-T T.81, B.1.1.2). A
    truncated JPEG ends where the next one starts, and is yielded truncated.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._position = 0  # of the next byte to examine; 0 while no start was found
        self._in_scan = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add data of the stream, and yield the JPEGs that are complete."""
        self._data += data
        while True:
            if not self._position and not self._find_start():
                return
            end = self._find_end()
            if end is None:
                if len(self._data) > LARGEST_JPEG:
                    self._forget(len(self._data))
                return
            jpeg = bytes(self._data[:end])
            self._forget(end)
            yield jpeg

    def rest(self) -> bytes:
        """Return the incomplete JPEG at the end of the stream; b"" if there is none."""
        return bytes(self._data) if self._position else b""

    def _forget(self, count: int) -> None:
        del self._data[:count]
        self._position, self._in_scan = 0, False

    def _find_start(self) -> bool:
        start = self._data.find(_START)
        if start < 0:
            self._forget(max(0, len(self._data) - len(_START) + 1))
            return False
        self._forget(start)
        self._position = 2
        return True

    def _find_end(self) -> int | None:
        """Return the length of the JPEG at the start of the data; None if not known yet."""
        while not self._in_scan:
            if len(self._data) < self._position + 4:
                return None
            if self._data[self._position] != 0xFF:  # not a marker: decoding will report it
                self._in_scan = True
                break
            marker = self._data[self._position + 1]
            if marker == _END[1]:
                return self._position + 2
            if marker == 0xFF or marker in _STANDALONE:  # 0xFF: a fill byte
                self._position += 1 if marker == 0xFF else 2
                continue
            size = int.from_bytes(self._data[self._position + 2 : self._position + 4], "big")
            segment_end = self._position + 2 + max(2, size)
            if marker not in _FREE:
                # A start marker here belongs to the next JPEG: this one has a truncated header.
                start = self._data.find(_START, self._position, segment_end + len(_START) - 1)
                if start >= 0:
                    return start
                if len(self._data) < segment_end + len(_START) - 1:
                    return None
            self._position = segment_end
            self._in_scan = marker == _SCAN
        return self._end_of_scan()

    def _end_of_scan(self) -> int | None:
        end = self._data.find(_END, self._position)
        start = self._data.find(_START, self._position, end if end >= 0 else len(self._data))
        if start >= 0:  # the next JPEG begins: this one is truncated
            return start
        if end >= 0:
            return end + len(_END)
        # A marker may be split across two reads.
        self._position = max(self._position, len(self._data) - len(_START) + 1)
        return None
