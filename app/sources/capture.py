"""OpenCV's VideoCapture, which another thread may close while one reads."""

from __future__ import annotations

import threading

import cv2
import numpy as np


class Capture:
    """An opened VideoCapture.

    It is never released during a read, which would lock up OpenCV's FFmpeg.

    Attributes
    ----------
    fps : frames per second; None if unknown
    """

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture
        self._lock = threading.Lock()
        self._closed = False
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else None

    def get(self, property_: int) -> float:
        """Return one of OpenCV's CAP_PROP_*. Call it before the first read only."""
        return float(self._capture.get(property_))

    def read(self) -> np.ndarray | None:
        """Return the next image, uint8 (height, width, 3) BGR; None at the end or after `close`."""
        with self._lock:
            ok, image = (False, None) if self._closed else self._capture.read()
            if self._closed:
                self._capture.release()
            return image if ok and not self._closed else None

    def close(self) -> None:
        """Release the capture, or let the current read release it when it returns."""
        self._closed = True
        if self._lock.acquire(blocking=False):
            self._capture.release()
            self._lock.release()
