"""What every source gives: frames; and how image files and JPEG bytes become one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

MAX_IMAGE_BYTES = 256 << 20
"""Largest image file that is read: 64 megapixels (see dpu/__init__.py) as a BMP have 192 MiB."""


class SourceError(Exception):
    """A source that cannot be used as it was named; the text is one line for the user."""


class CameraError(SourceError):
    """A camera or stream that does not open, or gives no images any more."""


@dataclass(slots=True)
class Frame:
    """One image on its way in.

    Attributes
    ----------
    index : 0, 1, 2, ... in the order of the source
    name : file name relative to the source, or video#number
    image : uint8, (height, width, 3), BGR; None before decoding, or where that failed
    folder : name of the sub-directory the image lies in, which may be its true label
    error : why there is no image
    decode : makes the image, raising ValueError where it is broken; run by whoever prepares the
        frame, so that frames which are dropped cost nothing and several are decoded at once
    due : monotonic time (s) from which the frame's latency counts, None for when it was read
    """

    index: int
    name: str
    image: np.ndarray | None = None
    folder: str | None = None
    error: str | None = None
    decode: Callable[[], np.ndarray] | None = None
    due: float | None = None


class Source:
    """An iterable of frames.

    Attributes
    ----------
    name : for the reader, without passwords
    length : number of frames, None where it is not known
    live : frames come at their own pace; the oldest are dropped where they are not taken in time
    fps : frames per second of a video or camera, None where it has no meaning or is not known
    needs_decoding : frames come as `Frame.decode`, which is worth threads of its own
    """

    name: str
    length: int | None = None
    live: bool = False
    fps: float | None = None
    needs_decoding: bool = False

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    def reads(self, path: Path) -> bool:
        """Tell whether a file is what this source reads, so that it must not be written."""
        return False

    def warnings(self) -> list[str]:
        """Return what the user should know of the source after the run, one line each."""
        return []

    def report(self) -> dict[str, Any]:
        """Return the source's own figures, by name."""
        return {}

    def close(self) -> None:
        """Give back what the source holds open; a reading that waits ends soon."""


def one_line(error: object) -> str:
    """Return the first line of an error, or its type where it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def shown_path(path: Path | str) -> str:
    """Return a path as text that can be written everywhere, whatever bytes are in it."""
    return os.fsencode(path).decode("utf-8", "replace")


def read_image(path: Path) -> np.ndarray:
    """Read an image file as uint8 BGR, turned upright by its EXIF orientation.

    Raises
    ------
    ValueError
        The file cannot be read, is larger than `MAX_IMAGE_BYTES`, is cut off or is no image.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_IMAGE_BYTES + 1)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    if len(data) > MAX_IMAGE_BYTES:
        raise ValueError(f"image file is larger than {MAX_IMAGE_BYTES >> 20} MiB")
    return decode_image(data)


def decode_image(data: bytes) -> np.ndarray:
    """Return the image in the bytes of a file, uint8 BGR.

    Raises
    ------
    ValueError
        They are cut off or no image. (OpenCV alone returns a cut-off JPEG with the rest grey,
        which would be classified as if it were whole.)
    """
    if is_cut_off(data):
        raise ValueError("image file is cut off")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise ValueError("not an image OpenCV can read" if data else "file is empty")
    return image


def is_cut_off(data: bytes) -> bool:
    """Tell whether a PNG, BMP or JPEG lacks its end; False for what is none of them."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in data
    if data.startswith(b"BM"):
        return len(data) < int.from_bytes(data[2:6], "little")
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    # The end mark is looked for behind the headers, which may hold a whole thumbnail.
    position = 2
    while data[position : position + 1] == b"\xff":
        if data[position + 1 : position + 2] == b"\xff":  # a fill byte
            position += 1
            continue
        if data[position + 1 : position + 2] == b"\xda":  # start of scan
            return b"\xff\xd9" not in data[position:]
        size = data[position + 2 : position + 4]
        if len(size) < 2:
            break
        position += 2 + int.from_bytes(size, "big")
    return position >= len(data)
