"""What every source gives: frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.errors import FAILED, TutelageError


class SourceError(TutelageError):
    """A source that cannot be used as it was named; the text is one line for the user."""


class CameraError(SourceError):
    """A camera or stream that does not open, or gives no images any more."""

    status = FAILED


@dataclass(slots=True)
class Frame:
    """One image on its way in.

    Attributes
    ----------
    index : 0, 1, 2, ... in the order of the source
    name : file name relative to the source, or video#number
    image : uint8, (height, width, 3), BGR; None before decoding, or where that failed
    folders : names of the sub-directories that the image is in, the outermost first; one of them
        may be its true label
    error : why there is no image
    decode : makes the image, raising ValueError where it is broken; run by whoever prepares the
        frame, so that frames which are dropped cost nothing and several are decoded at once. Its
        optional argument is called with the number of pixels before they take memory
    due : monotonic time (s) from which the frame's latency counts, None for when it was read
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
    name : for the reader, without passwords
    length : number of frames, None where it is not known
    live : frames come at their own pace; the oldest are dropped where they are not taken in time
    fps : frames per second of a video or camera, None where it has no meaning or is not known
    needs_decoding : frames come as `Frame.decode`, which is worth threads of its own
    shares_images : frames have the same few images again and again: they take no further memory
    at_hand : asking for the next frame neither reads nor waits, though it may be decoded later; so
        the threads that work on frames ask by themselves, one at a time, and none reads ahead
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
        """Return whether a file is what this source reads, so that it must not be written."""
        return False

    def warnings(self) -> list[str]:
        """Return what the user should know of the source after the run, one line each."""
        return []

    def report(self) -> dict[str, Any]:
        """Return the source's own figures, by name."""
        return {}

    def close(self) -> None:
        """Release files and connections; a reading that waits ends soon."""

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def shown_path(path: Path | str) -> str:
    """Return a path as text that can be written everywhere, whatever bytes are in it."""
    return os.fsencode(path).decode("utf-8", "replace")
