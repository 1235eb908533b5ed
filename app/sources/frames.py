"""Frames, and the base class of the sources that yield them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.errors import FAILED, TutelageError


class SourceError(TutelageError):
    """A source cannot be opened or used; the message is one line."""


class CameraError(SourceError):
    """A camera or stream cannot be opened, or no longer gives images."""

    status = FAILED


@dataclass(slots=True)
class Frame:
    """One input image.

    Attributes
    ----------
    index : 0, 1, 2, ... in the order of the source
    name : file name relative to the source, or video#number
    image : uint8 (height, width, 3), BGR; None before decoding, or if decoding failed
    folders : names of the sub-directories that the image is in, the outermost first; one of them
        may be its true label
    error : reason why there is no image
    decode : function that returns the image, or raises ValueError if it is broken. The thread that
        preprocesses the frame calls it, so that dropped frames cost nothing and several are decoded
        at once. Its optional argument is called with the number of pixels before they are allocated
    due : monotonic time (s) at which the frame's latency starts; None for the time of reading
    """

    index: int
    name: str
    image: np.ndarray | None = None
    folders: tuple[str, ...] = ()
    error: str | None = None
    decode: Callable[..., np.ndarray] | None = None
    due: float | None = None


class FrameSource:
    """An iterable of frames.

    Attributes
    ----------
    name : name for messages, without passwords
    length : number of frames; None if unknown
    live : frames arrive at their own pace; the oldest are dropped if they are not taken in time
    fps : frames per second of a video or camera; None if unknown or meaningless
    needs_decoding : frames have `Frame.decode`, for which additional threads are worthwhile
    shares_images : frames share a few images and take no further memory
    at_hand : the next frame is available without reading or waiting, though it may be decoded
        later. The threads that process frames then fetch them in turn, without a reader thread
    """

    name: str
    length: int | None = None
    live: bool = False
    fps: float | None = None
    needs_decoding: bool = False
    shares_images: bool = False
    at_hand: bool = False

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    def reads(self, path: Path) -> bool:
        """Return whether this source reads a file, which must then not be overwritten."""
        return False

    def warnings(self) -> list[str]:
        """Return warnings about the source for the end of the run, one line each."""
        return []

    def report(self) -> dict[str, Any]:
        """Return the source's own figures, by name."""
        return {}

    def close(self) -> None:
        """Release files and connections. An iteration in another thread ends soon."""

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def shown_path(path: Path | str) -> str:
    """Return a path as valid UTF-8 text, with U+FFFD for bytes that are not."""
    return os.fsencode(path).decode("utf-8", "replace")
