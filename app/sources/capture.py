"""OpenCV's VideoCapture, made safe to close from another thread than the one that reads."""

from __future__ import annotations

import threading

import cv2
import numpy as np


class Capture:
    """An opened capture. Releasing one in the middle of a read locks up inside of OpenCV's FFmpeg.

    Attributes
    ----------
    fps : frames per second, None where it is not known
    """

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture
        self._lock = threading.Lock()
        self._closed = False
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else None

    def get(self, property_: int) -> float:
        """Return one of OpenCV's CAP_PROP_*; before the first read only."""
        return float(self._capture.get(property_))

    def read(self) -> np.ndarray | None:
        """Return the next image, None at the end or when it was closed."""
        with self._lock:
            ok, image = (False, None) if self._closed else self._capture.read()
            if self._closed:
                self._capture.release()
            return image if ok and not self._closed else None

    def close(self) -> None:
        """Release the capture now, or as soon as the read that is going on has returned."""
        self._closed = True
        if self._lock.acquire(blocking=False):
            self._capture.release()
            self._lock.release()
