"""MJPEG streams over HTTP, and videos given by a URL."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from tutelage.app.sources import live
from tutelage.app.sources.frames import FrameSource, SourceError
from tutelage.app.sources.jpeg_stream import JpegSplitter
from tutelage.app.sources.registry import has_scheme, register_source
from tutelage.app.sources.url import check_url, without_password
from tutelage.app.sources.video import VideoSource
from tutelage.core.errors import first_line

if TYPE_CHECKING:
    from tutelage.app.sources._http import HttpStream

_TYPES = ("multipart/x-mixed-replace", "video/x-motion-jpeg")


@register_source(
    has_scheme("http", "https"),
    {"http://host/video.mjpg": "an MJPEG stream, or a video file"},
    place=30,
)
def open_http(url: str, reconnect: float) -> FrameSource:
    """Open an MJPEG stream or a video file, depending on the content type of the answer.

    Raises
    ------
    CameraError
        The server cannot be reached or refuses.
    SourceError
        The answer is not a video, or the URL is invalid or ambiguous.
    """
    check_url(url)
    stream = MjpegSource(url, reconnect)
    if stream.content_type in _TYPES:
        return stream
    stream.close()
    if stream.content_type.startswith(("text/", "image/", "application/json")):
        raise SourceError(f"{stream.name}: gives {stream.content_type}, not a video")
    return VideoSource(url, stream.name)


class MjpegSource(live.LiveSource):
    """A sequence of JPEGs in the answer to an HTTP request."""

    needs_decoding = True

    def __init__(self, url: str, reconnect: float) -> None:
        # Imported here, since --help imports all sources and few runs use HTTP.
        from tutelage.app.sources._http import HttpClient

        super().__init__(without_password(url), reconnect)
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        bare = urlunsplit((parts.scheme, host, parts.path or "/", parts.query, ""))
        limits = live.SILENCE_SECONDS, live.IMAGE_SECONDS
        self._client = HttpClient(bare, parts.username, parts.password, *limits)
        self._stream: HttpStream | None = None
        self._ended = ""  # why the last stream ended
        self.content_type = ""
        self._open()

    def _open(self) -> None:
        try:
            self._stream = self._client.open()
        except OSError as error:
            raise self._not_opened(str(error)) from None
        self.content_type = self._stream.content_type
        if self._lost_at is not None and self.content_type not in _TYPES:
            raise self._not_opened(f"now gives {self.content_type}")

    def _images(self) -> live.Images:
        assert self._stream is not None
        splitter = JpegSplitter()
        last = time.monotonic()
        with closing(self._stream) as stream:
            while not self._stop.is_set():
                try:
                    data = stream.read()
                except TimeoutError:
                    self._ended = f"the server was silent for {live.SILENCE_SECONDS:g} s"
                    return
                except OSError as error:
                    self._ended = f"the connection broke: {first_line(error)}"
                    return
                if not data:
                    self._ended = "the server ended the stream"
                    return
                for jpeg in splitter.feed(data):
                    yield jpeg
                    last = time.monotonic()
                if time.monotonic() - last > live.IMAGE_SECONDS:
                    self._ended = f"the server sent no complete image for {live.IMAGE_SECONDS:g} s"
                    return

    def _why_lost(self) -> str:
        return self._ended

    def close(self) -> None:
        super().close()
        if self._stream is not None:
            self._stream.interrupt()

    def _release(self) -> None:
        if self._stream is not None:
            self._stream.close()
