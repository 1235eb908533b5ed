"""A video as a source, by its file or URL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2

from tutelage.app.sources.capture import Capture
from tutelage.app.sources.frames import Frame, FrameSource, SourceError, shown_path


class VideoSource(FrameSource):
    """A video file or the URL of one."""

    def __init__(self, path: Path | str, name: str | None = None) -> None:
        self.name = name or shown_path(path)
        self._path = Path(path)
        if "\ufffd" in shown_path(path):  # OpenCV crashes on those
            raise SourceError(f"{self.name}: OpenCV opens no video by a name that is not UTF-8")
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
            raise SourceError(f"{self.name}: has no frame that OpenCV can decode")
        self._read_to_end = index

    def reads(self, path: Path) -> bool:
        return path.resolve() == self._path.resolve()

    def warnings(self) -> list[str]:
        """Return a line where the file has fewer frames than it announces, as a cut-off one."""
        read = self._read_to_end
        if read is None or self.length is None or read >= self.length:
            return []
        return [f"{self.name}: announces {self.length} frames, only {read} could be decoded"]

    def close(self) -> None:
        self._closed = True
        self._capture.close()
