"""The newest image as JPEG: encoded only where someone looks, once for all who do."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable

import cv2
import numpy as np

from app.web.streams import pause

FRAME_SECONDS = 1 / 15
MOST_VIEWERS = 8
BOUNDARY = "tutelage-frame"

_LARGEST = 960, 1280  # width, height
_SMALL = 320  # pixels: images are enlarged by a whole factor up to here
_QUALITY = 80  # of 100
_REPEAT_SECONDS = 0.5  # Chromium shows a part when the next one begins, so the last one is repeated


def encode(image: np.ndarray) -> bytes | None:
    """Return an image as JPEG in a size for the page; None where OpenCV cannot.

    Parameters
    ----------
    image : uint8, (height, width, 3), BGR
    """
    if image.size == 0:
        return None
    try:
        done, jpeg = cv2.imencode(".jpg", _sized(image), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    except cv2.error:
        return None
    return jpeg.tobytes() if done else None


def _sized(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    shrink = min(1.0, _LARGEST[0] / width, _LARGEST[1] / height)
    enlarge = max(1, _SMALL // max(width, height))
    if shrink < 1:
        size = max(1, round(width * shrink)), max(1, round(height * shrink))
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if enlarge > 1:
        size = width * enlarge, height * enlarge
        return cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
    return image


class Video:
    """Encodes the newest image when asked to, at most 15 times a second.

    Parameters
    ----------
    newest : returns the newest image, None before the first one

    Attributes
    ----------
    viewers : streams that are open
    encoded : images encoded so far
    """

    def __init__(self, newest: Callable[[], np.ndarray | None]) -> None:
        self._newest = newest
        self._lock = asyncio.Lock()
        self._image: np.ndarray | None = None
        self._jpeg: bytes | None = None
        self._due = 0.0
        self.viewers = 0
        self.encoded = 0

    async def jpeg(self) -> tuple[int, bytes | None]:
        """Return the newest JPEG and its number; all who ask in the same while get the same."""
        async with self._lock:
            image, now = self._newest(), time.monotonic()
            if image is not None and image is not self._image and now >= self._due:
                self._due = now + FRAME_SECONDS
                jpeg = await asyncio.to_thread(encode, image)
                self._image = image
                if jpeg is not None:
                    self._jpeg = jpeg
                    self.encoded += 1
            return self.encoded, self._jpeg

    async def parts(self, closing: asyncio.Event) -> AsyncIterator[bytes]:
        """Yield the parts of multipart/x-mixed-replace; one who is slow misses images."""
        yield f"--{BOUNDARY}\r\n".encode()
        seen, due = 0, time.monotonic()
        repeat_at = due
        while not closing.is_set():
            number, jpeg = await self.jpeg()
            if jpeg is not None and (number != seen or time.monotonic() >= repeat_at):
                repeat_at = math.inf if number == seen else time.monotonic() + _REPEAT_SECONDS
                seen = number
                yield _part(jpeg)
            due = max(due + FRAME_SECONDS, time.monotonic())
            await pause(closing, due - time.monotonic())


def _part(jpeg: bytes) -> bytes:
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    # The next boundary comes right behind, for readers that look for it rather than count.
    return head.encode() + jpeg + f"\r\n--{BOUNDARY}\r\n".encode()
