"""Sources that are files: images one by one, and videos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from tutelage.app.sources.capture import Capture
from tutelage.app.sources.frames import Frame, Source, SourceError, shown_path
from tutelage.core.images.decoder import read_image
from tutelage.core.images.files import IMAGE_SUFFIXES, find_images, skipped_line


def folder_source(folder: Path) -> ImageSource:
    """Return the images in a directory and below it, sorted, as a source.

    Raises
    ------
    SourceError
        There is none.
    """
    try:
        found = find_images(folder)
    except OSError as error:
        raise SourceError(f"{folder}: {error.strerror or error}") from error
    if not found.images:
        skipped = f"; {line}" if (line := found.report()) else ""
        kinds = " ".join(IMAGE_SUFFIXES)
        raise SourceError(
            f"{folder}: no images in this directory or below it (looked for {kinds}){skipped}"
        )
    return ImageSource(folder, found.images, found.skipped)


class ImageSource(Source):
    """Image files, in the given order; read and decoded by whoever prepares the frame.

    Parameters
    ----------
    root : the names of frames and their folders are relative to it
    paths : of the images
    skipped : how many other files were found, by reason
    """

    needs_decoding = True

    def __init__(self, root: Path, paths: list[Path], skipped: Counter[str] | None = None) -> None:
        self.name = shown_path(root if len(paths) != 1 else paths[0])
        self._skipped = +(skipped or Counter())
        self.length = len(paths)
        self._root = root
        self._paths = paths

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            inside = path.relative_to(self._root)
            folders = tuple(map(shown_path, inside.parts[:-1]))
            decode = partial(read_image, path)
            yield Frame(index, shown_path(inside), folders=folders, decode=decode)

    def reads(self, path: Path) -> bool:
        # Most outputs are new files, for which a hundred thousand images need not be looked at.
        return path.exists() and path.resolve() in {each.resolve() for each in self._paths}

    def warnings(self) -> list[str]:
        """Return a line about the files that were skipped."""
        line = skipped_line(self._skipped)
        return [f"{self.name}: {line}"] if line else []

    def report(self) -> dict[str, Any]:
        """Return how many files were skipped, by reason; empty for none."""
        return {"skipped": dict(self._skipped)} if self._skipped else {}


class VideoSource(Source):
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
        """Return a line where the file holds fewer frames than it announces, as a cut-off one."""
        read = self._read_to_end
        if read is None or self.length is None or read >= self.length:
            return []
        return [f"{self.name}: announces {self.length} frames, only {read} could be decoded"]

    def close(self) -> None:
        self._closed = True
        self._capture.close()
