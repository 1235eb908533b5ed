"""Output of an annotated video."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from tutelage.app.outputs.annotation import annotate, readable_size
from tutelage.app.outputs.output import Output, OutputError
from tutelage.app.outputs.registry import OutputContext, has_suffix, register_output
from tutelage.app.pipeline.result import Result
from tutelage.app.sources.frames import shown_path

if TYPE_CHECKING:
    from tutelage.app.outputs._video_writer import VideoWriter

CODECS = {".mp4": ("avc1", "vp09", "mp4v"), ".avi": ("MJPG",), ".mkv": ("mp4v",)}
"""The codecs to try for each suffix, the best first."""

_DRAWBACKS = {
    "vp09": "VP9, which takes this OpenCV about 35 ms for a frame of 640x480",
    "mp4v": "MPEG-4 Part 2, which browsers do not play",
}
"""Codecs of a .mp4 for machines without ffmpeg, with their drawbacks."""

_USUAL_FPS = 25.0  # of a video of images, which have no rate
_FRAMES_PER_DISK_CHECK = 32
_SPARE_BYTES = 1 << 20  # least free space, since OpenCV does not report a full disk


@register_output(
    has_suffix(*CODECS),
    {
        "seen.mp4": "an annotated video that browsers play",
        "seen.avi, seen.mkv": "the same with less CPU time, for players such as VLC",
    },
    place=20,
)
def open_video(uri: str, context: OutputContext) -> Output:
    """Return an output that creates the video file with the first frame.

    Raises
    ------
    OutputError
        The file cannot be created.
    """
    return VideoOutput(Path(uri), context.fps, context.say)


class VideoOutput(Output):
    """Video of the frames with label and confidence; frames without an image are left out.

    The size is that of the first frame; other images are scaled to fit.

    Parameters
    ----------
    path : video file with one of the suffixes in `CODECS`
    fps : frames per second; None for 25
    say : function that prints a line for the user
    """

    own_thread = True

    def __init__(
        self, path: Path, fps: float | None, say: Callable[[str], None] = lambda text: None
    ) -> None:
        if not path.parent.is_dir():
            raise OutputError(f"{path}: No such file or directory")
        if "\ufffd" in shown_path(path):  # OpenCV crashes on such names
            raise OutputError(f"{path}: OpenCV needs a file name in UTF-8 to write a video")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise OutputError(f"{path}: Permission denied")
        # Imported here, since --help imports all outputs.
        from tutelage.app.outputs import _video_writer

        if path.suffix.lower() == ".mp4":
            _video_writer.ffmpeg_has_h264()  # caches the answer, so that the first frame is quick
        self._open_writer = _video_writer.open_writer
        self._path = path
        self._say = say
        self._fps = fps or _USUAL_FPS
        self._writer: VideoWriter | None = None
        self._size = (0, 0)
        self._written = 0

    def add(self, result: Result) -> None:
        image = result.frame.image
        if image is None:
            return
        if self._writer is None:
            self._writer = self._open(image)
        if self._written % _FRAMES_PER_DISK_CHECK == 0:
            _check_space(self._path.parent)
        self._writer.write(annotate(result, *self._size))
        self._written += 1

    def _open(self, image: np.ndarray) -> VideoWriter:
        # Most codecs store colour at half the resolution, so sizes must be even.
        width, height = (max(2, side // 2 * 2) for side in readable_size(image))
        self._size = (width, height)
        codecs = CODECS[self._path.suffix.lower()]
        found = self._open_writer(self._path, codecs, self._fps, self._size)
        if found is None:
            raise OutputError(f"{self._path}: OpenCV cannot write this video")
        writer, code = found
        if self._path.suffix.lower() == ".mp4" and code in _DRAWBACKS:
            self._say(f"{self._path}: written as {_DRAWBACKS[code]}; try: sudo apt install ffmpeg")
        return writer

    def close(self) -> None:
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        # A writer does not report a full disk, so count the frames in the file.
        capture = cv2.VideoCapture(str(self._path))
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if found < self._written:
            raise OutputError(f"{self._path}: has {found} of {self._written} frames")


def _check_space(folder: Path) -> None:
    if shutil.disk_usage(folder).free < _SPARE_BYTES:
        raise OutputError(f"{folder}: {os.strerror(28)}")  # ENOSPC
