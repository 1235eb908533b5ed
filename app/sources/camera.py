"""V4L2 cameras, by number or device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2

from tutelage.app.sources.diagnosis import camera_trouble
from tutelage.app.sources.frames import CameraError, FrameSource, SourceError
from tutelage.app.sources.live import CaptureSource
from tutelage.app.sources.registry import register_source


def is_camera(uri: str) -> bool:
    """Return whether a URI names a camera: 0 or /dev/video0, with options after a comma."""
    return uri.partition(",")[0].isdecimal() or uri.startswith("/dev/video")


@register_source(
    is_camera,
    {"0, /dev/video0": "a camera; with options: 0,size=1280x720,fps=30,format=MJPG"},
    place=10,
)
def open_camera(uri: str, reconnect: float) -> FrameSource:
    """Open a camera.

    Raises
    ------
    CameraError
        The camera cannot be opened.
    SourceError
        The number, device or an option is invalid.
    """
    return CameraSource(uri, reconnect)


@dataclass(frozen=True)
class CameraOptions:
    """Settings requested from a V4L2 camera; None leaves the choice to the driver.

    Attributes
    ----------
    size : width and height, pixels
    fps : frames per second
    format : FourCC of the transferred pixels, such as MJPG or YUYV
    """

    size: tuple[int, int] | None = None
    fps: float | None = None
    format: str | None = None


def parse_camera(text: str) -> tuple[str, CameraOptions]:
    """Parse a camera such as "0,size=1280x720,fps=30,format=MJPG" into device and options.

    Raises
    ------
    SourceError
        The number, device or an option is invalid; the message is one line with the valid forms.
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
                f"{text}: {pair!r} is not a camera option; "
                "give, for example, size=1280x720, fps=30, format=MJPG"
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


class CameraSource(CaptureSource):
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
        if asked.format:  # before the size, since the available sizes depend on the format
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*asked.format))
        if asked.size:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, asked.size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, asked.size[1])
        if asked.fps:
            capture.set(cv2.CAP_PROP_FPS, asked.fps)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # so that the next frame is a recent one

    def _compare(self, capture: cv2.VideoCapture) -> list[str]:
        """Return a line for each option that the driver did not apply."""
        asked, lines = self._options, []
        size = (
            int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        )
        if asked.size and size != asked.size:
            wanted = "x".join(map(str, asked.size))
            lines.append(f"{self.name}: asked for {wanted}, the camera gives {size[0]}x{size[1]}")
        if asked.fps and self.fps and abs(self.fps - asked.fps) > 0.5:
            lines.append(f"{self.name}: asked for {asked.fps:g} fps, the camera gives {self.fps:g}")
        code = int(capture.get(cv2.CAP_PROP_FOURCC))
        given = code.to_bytes(4, "little", signed=code < 0).decode("latin-1")
        if asked.format and given.isprintable() and given.upper() != asked.format:
            lines.append(f"{self.name}: asked for {asked.format}, the camera gives {given}")
        return lines

    def _why_lost(self) -> str:
        return camera_trouble(self.name)

    def warnings(self) -> list[str]:
        return self._warnings
