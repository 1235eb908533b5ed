"""Sources that are live: V4L2 cameras, RTSP streams, MJPEG over HTTP.

They come at their own pace, break off and come back: a lost one is opened again, with growing
pauses, until the time for that is over.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import cv2
import numpy as np

from tutelage.app.messages import say
from tutelage.app.sources.capture import Capture
from tutelage.app.sources.diagnosis import camera_trouble, rtsp_trouble
from tutelage.app.sources.files import VideoSource
from tutelage.app.sources.frames import CameraError, Frame, Source, SourceError, one_line
from tutelage.app.sources.jpeg_stream import JpegSplitter
from tutelage.core.images.decoder import decode_image

SILENCE_SECONDS = 5.0
"""How long an open stream may give nothing before it counts as lost."""

IMAGE_SECONDS = 30.0
"""How long a stream may send bytes before it counts as lost: without a whole image among them, or
without the end of its answer's head."""

_PAUSES = (0.25, 0.5, 1.0, 2.0)  # seconds between attempts to open again; the last one repeats
_MJPEG_TYPES = ("multipart/x-mixed-replace", "video/x-motion-jpeg")
_CHUNK = 1 << 16

# One opened camera or stream: images, or JPEGs not yet decoded, until it breaks off.
_Images = Iterator["np.ndarray | bytes"]


class LiveSource(Source):
    """Base of all live sources: numbers the frames, and opens again what was lost.

    Derived classes have `_open`, which raises CameraError, and `_images`.
    """

    live = True

    def __init__(self, name: str, reconnect: float) -> None:
        self.name = name
        self._reconnect = reconnect
        self._stop = threading.Event()
        self._losses: list[float | None] = []  # seconds each took, None while it lasts
        self._lost_at: float | None = None
        self._attempts = 0  # to open it again, since then
        self._reason = ""  # why it was lost, or does not open again
        self._stem = Path(name).name or name

    def _open(self) -> None:
        raise NotImplementedError

    def _images(self) -> _Images:
        raise NotImplementedError

    def _release(self) -> None:
        """Close the camera or stream; it may be opened again."""

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while not self._stop.is_set():
            for image in self._images():
                if self._stop.is_set():
                    return
                if self._lost_at is not None:
                    self._note_back()
                frame = Frame(index, f"{self._stem}#{index:06d}")
                if isinstance(image, bytes):
                    frame.decode = partial(decode_image, image)
                else:
                    frame.image = image
                yield frame
                index += 1
            if not self._stop.is_set():
                self._come_back(index)

    def _come_back(self, count: int) -> None:
        """Open the source again; CameraError, with the reason, when it stays away."""
        self._release()
        what = f"{self.name} gives no more images after {count}"
        self._reason = self._why_lost()
        if self._lost_at is None:  # else it was opened, and gave none
            self._lost_at, self._attempts = time.monotonic(), 0
            self._losses.append(None)
            if self._reconnect <= 0:
                raise CameraError(f"{what}; {self._reason}")
            say(f"{what}; trying to open it again for {self._reconnect:g} s")
        while True:
            left = self._lost_at + self._reconnect - time.monotonic()
            if left <= 0:
                away = f"and did not come back in {self._reconnect:g} s"
                raise CameraError(f"{what}, {away}; {self._reason}")
            if self._stop.wait(min(left, _PAUSES[min(self._attempts, len(_PAUSES) - 1)])):
                return
            self._attempts += 1
            try:
                self._open()
            except CameraError:
                continue
            if self._stop.is_set():  # closed while it was opened
                self._release()
            return

    def _note_back(self) -> None:
        """Take note of the first image after a loss."""
        assert self._lost_at is not None
        self._losses[-1] = seconds = time.monotonic() - self._lost_at
        self._lost_at = None
        say(f"{self.name} is back after {seconds:.1f} s")

    def _why_lost(self) -> str:
        """Return the reason for the loss, one line."""
        raise NotImplementedError

    def _not_opened(self, reason: str) -> CameraError:
        self._reason = reason
        return CameraError(f"{self.name}: {reason}")

    def report(self) -> dict[str, Any]:
        """Return how often the source was lost, and for how many seconds until it was back."""
        back = [seconds for seconds in self._losses if seconds is not None]
        return {"lost": len(self._losses), "lost_seconds": round(sum(back), 3)}

    def close(self) -> None:
        self._stop.set()


@dataclass(frozen=True)
class CameraOptions:
    """What a V4L2 camera is asked for; None leaves the driver's own choice.

    Attributes
    ----------
    size : width, height in pixels
    fps : frames per second
    format : FourCC of the pixels on the wire, such as MJPG or YUYV
    """

    size: tuple[int, int] | None = None
    fps: float | None = None
    format: str | None = None


def parse_camera(text: str) -> tuple[str, CameraOptions]:
    """Return the device and the options of "0,size=1280x720,fps=30,format=MJPG".

    Raises
    ------
    SourceError
        One line that says what may stand there.
    """
    device, *pairs = text.split(",")
    device = f"/dev/video{device}" if _is_number(device) else device
    number = device.removeprefix("/dev/video")
    if number == device or not _is_number(number):
        raise SourceError(f"{text}: a camera is a number or /dev/videoN")
    found: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        try:
            found[key] = _camera_option(key, value)
        except ValueError:
            raise SourceError(
                f"{text}: {pair!r} is not an option of a camera; "
                "these are size=1280x720, fps=30, format=MJPG"
            ) from None
    return device, CameraOptions(**found)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 3


def _camera_option(key: str, value: str) -> Any:
    if key == "size":
        width, _, height = value.partition("x")
        if int(width) > 0 and int(height) > 0:
            return int(width), int(height)
    if key == "fps" and 0 < float(value) < 10_000:
        return float(value)
    if key == "format" and len(value) == 4 and value.isascii() and value.isalnum():
        return value.upper()
    raise ValueError


class _CaptureSource(LiveSource):
    """What OpenCV's VideoCapture reads; derived classes open it."""

    _capture: Capture | None = None

    def _take(self, capture: cv2.VideoCapture) -> None:
        self._capture = Capture(capture)
        self.fps = self._capture.fps

    def _images(self) -> _Images:
        assert self._capture is not None
        while (image := self._capture.read()) is not None:
            yield image

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.close()

    def close(self) -> None:
        super().close()
        self._release()


class CameraSource(_CaptureSource):
    """A V4L2 camera by number or /dev/videoN, with options."""

    def __init__(self, camera: str, reconnect: float = 0.0) -> None:
        device, self._options = parse_camera(camera)
        super().__init__(device, reconnect)
        self._warnings: list[str] = []
        self._open()

    def _open(self) -> None:
        capture = cv2.VideoCapture(int(self.name[len("/dev/video") :]), cv2.CAP_V4L2)
        if not capture.isOpened():
            self._reason = camera_trouble(self.name)
            raise CameraError(f"camera {self.name} cannot be opened: {self._reason}")
        self._set(capture)
        self._take(capture)
        self._warnings = self._compare(capture)

    def _set(self, capture: cv2.VideoCapture) -> None:
        asked = self._options
        if asked.format:  # before the size: the sizes on offer depend on it
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*asked.format))
        if asked.size:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, asked.size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, asked.size[1])
        if asked.fps:
            capture.set(cv2.CAP_PROP_FPS, asked.fps)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a fresh frame rather than an old one

    def _compare(self, capture: cv2.VideoCapture) -> list[str]:
        """Return a line for each option that the driver did not take."""
        asked, lines = self._options, []
        size = (
            int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        )
        if asked.size and size != asked.size:
            wanted = "x".join(map(str, asked.size))
            lines.append(f"{self.name}: asked for {wanted}, the camera gives {size[0]}x{size[1]}")
        if asked.fps and self.fps and abs(self.fps - asked.fps) > 0.5:
            lines.append(f"{self.name}: asked for {asked.fps:g} fps, it says {self.fps:g}")
        code = int(capture.get(cv2.CAP_PROP_FOURCC))
        given = code.to_bytes(4, "little", signed=code < 0).decode("latin-1")
        if asked.format and given.isprintable() and given.upper() != asked.format:
            lines.append(f"{self.name}: asked for {asked.format}, the camera gives {given}")
        return lines

    def _why_lost(self) -> str:
        return camera_trouble(self.name)

    def warnings(self) -> list[str]:
        return self._warnings


def check_url(url: str) -> None:
    """Refuse a URL of which it is not certain what of it is the password.

    Raises
    ------
    SourceError
        One line that shows nothing of it but its scheme.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    else:
        # user:1/23@host has a host named user with the port 1, for a parser.
        if port is not None and "@" not in parts.netloc and "@" in url:
            host = None
    if not host:
        raise SourceError(
            f"{url.partition('://')[0]}://...: not a URL; in a user's name or password "
            "write / as %2F, # as %23, ? as %3F, @ as %40"
        )


def without_password(url: str) -> str:
    """Return a URL as it may be shown: user and password taken out, and what a query hides."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


class RtspSource(_CaptureSource):
    """A network camera over RTSP, read by OpenCV's FFmpeg.

    Raises
    ------
    CameraError
        It cannot be reached or gives no video.
    """

    def __init__(self, url: str, reconnect: float) -> None:
        super().__init__(without_password(url), reconnect)
        self._url = url
        self._open()

    def _open(self) -> None:
        # TCP: over UDP a lost packet is a torn image that decodes without an error.
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
        silence = int(1000 * SILENCE_SECONDS)
        limits = [
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 2 * silence),  # finding out what it holds takes time
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, silence),
        ]
        capture = cv2.VideoCapture(self._url, cv2.CAP_FFMPEG, limits)
        if not capture.isOpened():
            raise self._not_opened(rtsp_trouble(self._url))
        self._take(capture)

    def _why_lost(self) -> str:
        return rtsp_trouble(self._url)


def open_http(url: str, reconnect: float) -> Source:
    """Open an MJPEG stream, or a video file by its URL, by what the server says it is.

    Raises
    ------
    CameraError
        The server cannot be reached or refuses.
    SourceError
        What it gives is no video.
    """
    stream = MjpegSource(url, reconnect)
    if stream.content_type in _MJPEG_TYPES:
        return stream
    stream.close()
    if stream.content_type.startswith(("text/", "image/", "application/json")):
        raise SourceError(f"{stream.name}: gives {stream.content_type}, not a video")
    return VideoSource(url, stream.name)


class MjpegSource(LiveSource):
    """JPEGs one after the other in the answer to an HTTP request."""

    needs_decoding = True

    def __init__(self, url: str, reconnect: float) -> None:
        super().__init__(without_password(url), reconnect)
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        self._url = urlunsplit((parts.scheme, host, parts.path or "/", parts.query, ""))
        self._opener = _opener(self._url, parts.username, parts.password)
        self._answer: Any = None
        self._ended = ""  # why the last answer did
        self.content_type = ""
        self._open()

    def _open(self) -> None:
        try:
            self._answer = self._opener.open(self._url, timeout=SILENCE_SECONDS)
        except urllib.error.HTTPError as error:
            error.close()
            told = f"the server answers {error.code} {one_line(error.reason)}"
            raise self._not_opened(told) from None
        except (OSError, HTTPException, ValueError) as error:
            reason = one_line(getattr(error, "reason", None) or error)
            raise self._not_opened(f"cannot be reached: {reason}") from None
        self.content_type = self._answer.headers.get_content_type()
        if self._lost_at is not None and self.content_type not in _MJPEG_TYPES:
            raise self._not_opened(f"gives {self.content_type} now")

    def _images(self) -> _Images:
        splitter = JpegSplitter()
        last = time.monotonic()
        with closing(self._answer):
            while not self._stop.is_set():
                try:
                    data = self._answer.read1(_CHUNK)
                except TimeoutError:
                    self._ended = f"the server was silent for {SILENCE_SECONDS:g} s"
                    return
                except (OSError, HTTPException, ValueError) as error:  # ValueError: by `close`
                    self._ended = f"the connection broke: {one_line(error)}"
                    return
                if not data:
                    self._ended = "the server ended the stream"
                    return
                for jpeg in splitter.feed(data):
                    yield jpeg
                    last = time.monotonic()
                if time.monotonic() - last > IMAGE_SECONDS:
                    self._ended = f"the server sent no whole image for {IMAGE_SECONDS:g} s"
                    return

    def _why_lost(self) -> str:
        return self._ended

    def close(self) -> None:
        super().close()
        # A reading that waits ends when the connection does; closing the answer would wait too.
        # A stream that has ended by itself has no descriptor any more: AttributeError.
        with suppress(OSError, ValueError, AttributeError):  # noqa: SIM117  (in this order)
            with socket.socket(fileno=os.dup(self._answer.fileno())) as connection:
                connection.shutdown(socket.SHUT_RDWR)

    def _release(self) -> None:
        if self._answer is not None:
            self._answer.close()


class _Connection(HTTPConnection):
    """A connection whose answers begin in time: its timeout is for single bytes alone."""

    def getresponse(self) -> HTTPResponse:
        late = threading.Event()

        def end(connection: socket.socket) -> None:
            late.set()
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(IMAGE_SECONDS, end, [self.sock])
        timer.daemon = True
        timer.start()
        try:
            answer = super().getresponse()
        finally:
            timer.cancel()
        if late.is_set():  # else the head would seem to end there
            raise TimeoutError(f"no whole answer in {IMAGE_SECONDS:g} s")
        return answer


class _SecureConnection(HTTPSConnection, _Connection):
    """The same over TLS."""


class _HTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_Connection, request)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_SecureConnection, request)


def _opener(url: str, user: str | None, password: str | None) -> urllib.request.OpenerDirector:
    handlers: Sequence[Any] = []
    if user is not None:
        known = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        known.add_password(None, url, unquote(user), unquote(password or ""))
        handlers = [
            urllib.request.HTTPBasicAuthHandler(known),
            urllib.request.HTTPDigestAuthHandler(known),
        ]
    # The handlers for ftp:// and file:// are left out: a redirect must not lead there.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _HTTPHandler(),
        _HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        *handlers,
    ):
        opener.add_handler(handler)
    return opener
