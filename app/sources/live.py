"""Base classes of live sources: cameras and streams.

Their frames arrive at their own pace. A lost source is reopened, with increasing pauses, until it
is back or the time limit is reached.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tutelage.app.sources.capture import Capture
from tutelage.app.sources.frames import CameraError, Frame, FrameSource
from tutelage.core.images.decoder import decode_image
from tutelage.core.text import shown

SILENCE_SECONDS = 5.0
"""Time without data after which an open stream counts as lost, s."""

IMAGE_SECONDS = 30.0
"""Time without a complete image, or without complete HTTP headers, after which a stream that sends
bytes counts as lost, s."""

_PAUSES = (0.25, 0.5, 1.0, 2.0)  # seconds between attempts to reopen; the last one repeats

# Images or undecoded JPEGs of an open camera or stream, until it is lost.
Images = Iterator["np.ndarray | bytes"]


class LiveSource(FrameSource):
    """Base class of live sources, which numbers the frames and reopens a lost source.

    Derived classes implement `_open`, which raises CameraError, and `_images`.

    Parameters
    ----------
    name : name for messages, without passwords
    reconnect : time in which a lost source may come back, s
    """

    live = True

    def __init__(self, name: str, reconnect: float) -> None:
        self.name = name
        self._reconnect = reconnect
        self._stop = threading.Event()
        self._losses: list[float | None] = []  # duration of each, s; None while it lasts
        self._lost_at: float | None = None
        self._attempts = 0  # to reopen it since then
        self._reason = ""  # why it was lost, or cannot be reopened
        self._stem = Path(name).name or name

    def _open(self) -> None:
        raise NotImplementedError

    def _images(self) -> Images:
        raise NotImplementedError

    def _release(self) -> None:
        """Close the camera or stream, which may be reopened."""

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
        """Reopen the source; raise CameraError, with the reason, if it does not come back."""
        self._release()
        what = f"{self.name} gives no more images after {count}"
        self._reason = self._why_lost()
        if self._lost_at is None:  # else it was reopened and gave no image
            self._lost_at, self._attempts = time.monotonic(), 0
            self._losses.append(None)
            if self._reconnect <= 0:
                raise CameraError(f"{what}; {self._reason}")
            _print(f"{what}; trying to reopen it for {self._reconnect:g} s")
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
            if self._stop.is_set():  # `close` was called meanwhile
                self._release()
            return

    def _note_back(self) -> None:
        """Record the end of a loss, at its first image."""
        assert self._lost_at is not None
        self._losses[-1] = seconds = time.monotonic() - self._lost_at
        self._lost_at = None
        _print(f"{self.name} is back after {seconds:.1f} s")

    def _why_lost(self) -> str:
        """Return the reason for the loss, one line."""
        raise NotImplementedError

    def _not_opened(self, reason: str) -> CameraError:
        self._reason = reason
        return CameraError(f"{self.name}: {reason}")

    def report(self) -> dict[str, Any]:
        """Return the number of losses, and the total time (s) of those that ended."""
        back = [seconds for seconds in self._losses if seconds is not None]
        return {"lost": len(self._losses), "lost_seconds": round(sum(back), 3)}

    def close(self) -> None:
        self._stop.set()


def _print(text: str) -> None:
    print(f"classify: {shown(text)}", file=sys.stderr, flush=True)


class CaptureSource(LiveSource):
    """Base class of live sources read by OpenCV's VideoCapture; derived classes open it."""

    _capture: Capture | None = None

    def _take(self, capture: cv2.VideoCapture) -> None:
        self._capture = Capture(capture)
        self.fps = self._capture.fps

    def _images(self) -> Images:
        assert self._capture is not None
        while (image := self._capture.read()) is not None:
            yield image

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.close()

    def close(self) -> None:
        super().close()
        self._release()
