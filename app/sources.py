"""Where frames come from: a directory, an image, a video file or a camera.

    source = open_source("photos/")
    for frame in source: ...

A frame that cannot be decoded comes as a Frame with an error in place of its image, so that
every consumer sees it and the count stays whole. Only a source that breaks off altogether
raises.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


class SourceError(Exception):
    """A source that cannot be used as it was named; the text is one line for the user."""


class CameraError(SourceError):
    """A camera that does not open or stops giving images."""


@dataclass
class Frame:
    """One image on its way in.

    Attributes
    ----------
    index : 0, 1, 2, ... in the order of the source
    name : file name relative to the source, or video#number
    image : uint8, (height, width, 3), BGR; None where it could not be decoded
    folder : name of the sub-directory the image lies in, which may be its true label
    error : why there is no image
    """

    index: int
    name: str
    image: np.ndarray | None
    folder: str | None = None
    error: str | None = None


class Source:
    """An iterable of frames.

    Attributes
    ----------
    name : for the reader
    length : number of frames, None where it is not known
    live : a camera, whose frames come at their own pace
    fps : frames per second of a video or camera, None where it has no meaning or is not known
    """

    name: str
    length: int | None = None
    live: bool = False
    fps: float | None = None

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    def close(self) -> None:
        """Give back what the source holds open."""


def open_source(uri: str) -> Source:
    """Open a directory, an image, a video file, or a camera by /dev/videoN.

    Raises
    ------
    SourceError
        There is nothing of that name, or nothing in it; CameraError for a camera.
    """
    if uri.startswith("/dev/"):
        return CameraSource(uri)
    if "://" in uri:
        raise SourceError(
            f"{uri}: streams are not supported; "
            "give a directory, an image, a video file or /dev/videoN"
        )
    path = Path(uri)
    if path.is_dir():
        return ImageSource(path, _images_in(path))
    if not path.exists():
        raise SourceError(f"{uri}: no such file or directory")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource(path.parent, [path])
    return VideoSource(path)


def _images_in(folder: Path) -> list[Path]:
    images = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )
    if not images:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise SourceError(f"{folder}: no images in this directory or below it (looked for {kinds})")
    return images


class ImageSource(Source):
    """Image files, in the given order."""

    def __init__(self, root: Path, paths: list[Path]) -> None:
        self.name = str(root if len(paths) != 1 else paths[0])
        self.length = len(paths)
        self._root = root
        self._paths = paths

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            folder = path.parent.name if path.parent != self._root else None
            frame = Frame(index, str(path.relative_to(self._root)), None, folder)
            try:
                frame.image = read_image(path)
            except ValueError as error:
                frame.error = str(error)
            yield frame


def read_image(path: Path) -> np.ndarray:
    """Read an image file as uint8 BGR, turned upright by its EXIF orientation.

    Raises
    ------
    ValueError
        The file cannot be read, is cut off or is no image. (OpenCV alone returns a cut-off
        JPEG with the rest grey, which would be classified as if it were whole.)
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
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
        if data[position + 1 : position + 2] == b"\xda":  # start of scan
            return b"\xff\xd9" not in data[position:]
        size = data[position + 2 : position + 4]
        if len(size) < 2:
            break
        position += 2 + int.from_bytes(size, "big")
    return position >= len(data)


class CaptureSource(Source):
    """What OpenCV's VideoCapture reads: base of video files and cameras."""

    def __init__(self, name: str, capture: cv2.VideoCapture) -> None:
        self.name = name
        self._capture = capture
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else None

    def __iter__(self) -> Iterator[Frame]:
        stem = Path(self.name).name
        index = 0
        while True:
            ok, image = self._capture.read()
            if not ok:
                break
            yield Frame(index, f"{stem}#{index:06d}", image)
            index += 1
        self._ended(index)

    def _ended(self, count: int) -> None:
        """Called when no more frames come; may raise."""

    def close(self) -> None:
        self._capture.release()


class VideoSource(CaptureSource):
    """A video file."""

    def __init__(self, path: Path) -> None:
        capture = cv2.VideoCapture(str(path))
        if not capture.isOpened():
            raise SourceError(f"{path}: neither an image nor a video that OpenCV can read")
        super().__init__(str(path), capture)
        announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.length = announced if announced > 0 else None

    def _ended(self, count: int) -> None:
        if count == 0:
            raise SourceError(f"{self.name}: has no frame that OpenCV can decode")


class CameraSource(CaptureSource):
    """A camera, by number or by /dev/videoN."""

    live = True

    def __init__(self, camera: str) -> None:
        device = f"/dev/video{camera}" if camera.isdigit() else camera
        try:
            number = int(device.rpartition("/dev/video")[2])
        except ValueError:
            raise SourceError(f"{camera}: a camera is a number or /dev/videoN") from None
        capture = cv2.VideoCapture(number)
        if not capture.isOpened():
            raise CameraError(f"camera {device} cannot be opened: {_camera_advice(device)}")
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a fresh frame rather than an old one
        super().__init__(device, capture)

    def _ended(self, count: int) -> None:
        raise CameraError(f"camera {self.name} stopped after {count} images; is it unplugged?")


def _camera_advice(device: str) -> str:
    if not Path(device).exists():
        others = sorted(str(path) for path in Path("/dev").glob("video*"))
        there = f"there are {' '.join(others)}" if others else "no camera is connected"
        return f"it does not exist, {there}; try another --camera N, or --source FILE"
    if not os.access(device, os.R_OK | os.W_OK):
        return "no permission; try: sudo usermod -aG video $USER, then log in again"
    return "another program may use it (try: fuser -v " + device + "), or it gives no video"
