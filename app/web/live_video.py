"""The newest result with its image as JPEG, encoded once for all viewers, and only for viewers."""

from __future__ import annotations

import asyncio
import json
import math
import struct
import time
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import cv2
import numpy as np

from tutelage.app.pipeline.result import Result
from tutelage.app.web.monitor import verdict_of
from tutelage.app.web.streams import pause

FRAME_SECONDS = 1 / 15
MOST_VIEWERS = 8
BOUNDARY = "tutelage-frame"
RECORD_HEAD = struct.Struct(">II")
"""Head of each record of the results: lengths of the JSON and of the JPEG that follow it, bytes."""

_LARGEST = 960, 1280  # width, height
_SMALL = 320  # pixels: smaller images are enlarged by a whole factor, up to this size
_QUALITY = 80  # of 100
_REPEAT_SECONDS = 0.5  # Chromium shows a part only when the next one begins


def encode(image: np.ndarray) -> bytes | None:
    """Return an image as JPEG in a size for the page; None if OpenCV cannot encode it.

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


class _Shown(NamedTuple):
    """A result in the form that is sent to viewers."""

    number: int
    record: bytes


class Video:
    """Encoder of the newest result, on request and at most 15 times per second.

    Parameters
    ----------
    newest : function that returns the newest result and its number, None before the first one

    Attributes
    ----------
    viewers : number of open streams
    encoded : number of images encoded so far
    """

    def __init__(self, newest: Callable[[], tuple[int, Result] | None]) -> None:
        self._newest = newest
        self._lock = asyncio.Lock()
        self._shown: _Shown | None = None
        self._image: np.ndarray | None = None  # the newest image of a result; its JPEG is _jpeg
        self._jpeg: bytes | None = None
        self._due = 0.0
        self.viewers = 0
        self.encoded = 0

    async def _look(self, at_once: bool = False) -> None:
        """Encode the newest result for all viewers, unless the last one was encoded just now."""
        async with self._lock:
            newest, now = self._newest(), time.monotonic()
            if newest is None or (self._shown is not None and newest[0] == self._shown.number):
                return
            if now < self._due and not at_once:
                return
            # Counted from the due time: otherwise a viewer who is late misses the next one.
            self._due = max(self._due, now - FRAME_SECONDS / 2) + FRAME_SECONDS
            number, result = newest
            jpeg = await self._encoded(result.frame.image)
            verdict = json.dumps(verdict_of(number, result), ensure_ascii=False).encode()
            self._shown = _Shown(number, _record(verdict, jpeg))

    async def _encoded(self, image: np.ndarray | None) -> bytes:
        """Return an image as JPEG; empty if there is no image or it cannot be encoded."""
        if image is None:
            return b""
        if image is not self._image:
            jpeg = await asyncio.to_thread(encode, image)
            if jpeg is None:
                return b""
            self._image, self._jpeg = image, jpeg
            self.encoded += 1
        return self._jpeg or b""

    async def jpeg(self) -> bytes | None:
        """Return the newest image as JPEG, None before the first one."""
        await self._look()
        return self._jpeg

    async def records(self, closing: asyncio.Event) -> AsyncIterator[bytes]:
        """Yield results, each with its own image; a slow viewer misses some.

        A record is `RECORD_HEAD`, the result as JSON and its JPEG, which is empty if the result has
        no image. The last record is the run's last result.
        """
        seen, ended = 0, False
        due = time.monotonic()
        while not ended:
            ended = closing.is_set()
            await self._look(at_once=ended)
            shown = self._shown
            if shown is not None and shown.number != seen:
                seen = shown.number
                yield shown.record
            due = max(due + FRAME_SECONDS, time.monotonic())
            await pause(closing, due - time.monotonic())

    async def parts(self, closing: asyncio.Event) -> AsyncIterator[bytes]:
        """Yield the parts of a multipart/x-mixed-replace response; a slow viewer misses images."""
        yield f"--{BOUNDARY}\r\n".encode()
        seen: bytes | None = None
        due = repeat_at = time.monotonic()
        while not closing.is_set():
            jpeg = await self.jpeg()
            if jpeg is not None and (jpeg is not seen or time.monotonic() >= repeat_at):
                repeat_at = math.inf if jpeg is seen else time.monotonic() + _REPEAT_SECONDS
                seen = jpeg
                yield _part(jpeg)
            due = max(due + FRAME_SECONDS, time.monotonic())
            await pause(closing, due - time.monotonic())


def _record(verdict: bytes, jpeg: bytes) -> bytes:
    return RECORD_HEAD.pack(len(verdict), len(jpeg)) + verdict + jpeg


def _part(jpeg: bytes) -> bytes:
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    # The boundary follows immediately, for readers that search for it instead of counting bytes.
    return head.encode() + jpeg + f"\r\n--{BOUNDARY}\r\n".encode()
