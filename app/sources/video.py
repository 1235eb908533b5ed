"""Source of the frames of a video file or URL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2

from tutelage.app.sources.capture import Capture
from tutelage.app.sources.frames import Frame, FrameSource, SourceError, shown_path


class VideoSource(FrameSource):
    """The frames of a video.

    Parameters
    ----------
    path : file or URL
    name : name for messages; None for the path

    Raises
    ------
    SourceError
        OpenCV cannot read it.
    """

    def __init__(self, path: Path | str, name: str | None = None) -> None:
        self.name = name or shown_path(path)
        self._path = Path(path)
        if "\ufffd" in shown_path(path):  # OpenCV crashes on such names
            raise SourceError(f"{self.name}: OpenCV needs a file name in UTF-8 to read a video")
        capture = cv2.VideoCapture(str(path))
        if not capture.isOpened():
            raise SourceError(f"{self.name}: neither an image nor a video that OpenCV can read")
        self._capture = Capture(capture)
        self._closed = False
        self.fps = self._capture.fps
        announced = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.length = announced if announced > 0 else None
        self._read_to_end: int | None = None

    def __iter__(self) -> Iterator[Frame]:
        stem = Path(self.name).name
        index = 0
        while (image := self._capture.read()) is not None:
            yield Frame(index, f"{stem}#{index:06d}", image)
            index += 1
        if self._closed:
            return
        if index == 0:
            raise SourceError(f"{self.name}: OpenCV cannot decode any of its frames")
        self._read_to_end = index

    def reads(self, path: Path) -> bool:
        return path.resolve() == self._path.resolve()

    def warnings(self) -> list[str]:
        """Return a line if the file has fewer frames than its header says."""
        read = self._read_to_end
        if read is None or self.length is None or read >= self.length:
            return []
        return [f"{self.name}: announces {self.length} frames, only {read} could be decoded"]

    def close(self) -> None:
        self._closed = True
        self._capture.close()
