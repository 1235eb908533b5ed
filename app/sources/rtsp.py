"""Network cameras over RTSP."""

from __future__ import annotations

import os

import cv2

from tutelage.app.sources import live
from tutelage.app.sources.diagnosis import rtsp_trouble
from tutelage.app.sources.frames import FrameSource
from tutelage.app.sources.registry import has_scheme, register_source
from tutelage.app.sources.url import check_url, without_password


@register_source(has_scheme("rtsp", "rtsps"), {"rtsp://host/stream": "a network camera"}, place=20)
def open_rtsp(url: str, reconnect: float) -> FrameSource:
    """Open a network camera.

    Raises
    ------
    CameraError
        The camera cannot be reached or gives no video.
    SourceError
        The URL is invalid or ambiguous.
    """
    check_url(url)
    return RtspSource(url, reconnect)


class RtspSource(live.CaptureSource):
    """A network camera over RTSP, read by OpenCV's FFmpeg.

    Raises
    ------
    CameraError
        The camera cannot be reached or gives no video.
    """

    def __init__(self, url: str, reconnect: float) -> None:
        super().__init__(without_password(url), reconnect)
        self._url = url
        self._open()

    def _open(self) -> None:
        # TCP, since a packet lost over UDP corrupts an image without an error.
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
        silence = int(1000 * live.SILENCE_SECONDS)
        limits = [
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 2 * silence),  # analysing the stream takes time
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, silence),
        ]
        capture = cv2.VideoCapture(self._url, cv2.CAP_FFMPEG, limits)
        if not capture.isOpened():
            raise self._not_opened(rtsp_trouble(self._url))
        self._take(capture)

    def _why_lost(self) -> str:
        return rtsp_trouble(self._url)
