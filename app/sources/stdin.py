"""Source of JPEGs on standard input."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from functools import partial

from tutelage.app.sources.frames import Frame, FrameSource, SourceError
from tutelage.app.sources.jpeg_stream import JpegSplitter
from tutelage.app.sources.registry import register_source
from tutelage.core.images.decoder import decode_image

_CHUNK = 1 << 16


@register_source(lambda uri: uri == "-", {"-": "a sequence of JPEGs on standard input"}, place=40)
def open_stdin(_uri: str, _reconnect: float) -> FrameSource:
    """Open standard input."""
    return StdinSource()


class StdinSource(FrameSource):
    """A sequence of JPEGs on standard input. None are dropped; the writer waits."""

    needs_decoding = True

    def __init__(self) -> None:
        self.name = "standard input"
        self._closed = False
        if sys.stdin is None or sys.stdin.isatty():
            raise SourceError(
                "standard input is a terminal; pipe JPEGs into it, for example from "
                "ffmpeg -i walk.mp4 -f mjpeg -"
            )

    def __iter__(self) -> Iterator[Frame]:
        count = 0
        splitter = JpegSplitter()
        while data := self._read():
            for jpeg in splitter.feed(data):
                yield Frame(count, f"stdin#{count:06d}", decode=partial(decode_image, jpeg))
                count += 1
        if not self._closed and (cut_off := splitter.rest()):
            yield Frame(count, f"stdin#{count:06d}", decode=partial(decode_image, cut_off))
            count += 1
        if count == 0 and not self._closed:
            raise SourceError("standard input contained no JPEG")

    def _read(self) -> bytes:
        """Return the next bytes; b"" at the end or after `close`."""
        descriptor = sys.stdin.fileno()
        while not self._closed:
            if select.select([descriptor], [], [], 0.2)[0]:
                return os.read(descriptor, _CHUNK)
        return b""

    def close(self) -> None:
        self._closed = True
