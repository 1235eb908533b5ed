"""Results as an annotated video."""

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
"""By suffix the codecs of a video that are tried, the best first."""

_DRAWBACKS = {
    "vp09": "VP9, which takes this OpenCV about 35 ms for a frame of 640x480",
    "mp4v": "MPEG-4 Part 2, which browsers do not play",
}
"""Codecs of a .mp4 that serve where ffmpeg is not there, and what speaks against them."""

_USUAL_FPS = 25.0  # of a video made of images, which have no rate of their own
_FRAMES_PER_LOOK_AT_DISK = 32
_SPARE_BYTES = 1 << 20  # OpenCV does not report a full disk: seen before it comes to that


@register_output(
    has_suffix(*CODECS),
    {
        "seen.mp4": "the frames as a video that browsers play, labels written on them",
        "seen.avi, seen.mkv": "the same with less work, for players such as VLC",
    },
    place=20,
)
def open_video(uri: str, context: OutputContext) -> Output:
    """Open a video file; it is written from the first frame on."""
    return VideoOutput(Path(uri), context.fps, context.tell)


class VideoOutput(Output):
    """The frames with label and confidence written on them; frames without image are left out.

    The first frame gives the size; smaller images are enlarged, others fitted in.

    Parameters
    ----------
    path : its suffix is one of `CODECS`
    fps : frames per second, None for the usual
    tell : called with each line for the user
    """

    own_thread = True

    def __init__(
        self, path: Path, fps: float | None, tell: Callable[[str], None] = lambda text: None
    ) -> None:
        if not path.parent.is_dir():
            raise OutputError(f"{path}: No such file or directory")
        if "\ufffd" in shown_path(path):  # OpenCV crashes on those
            raise OutputError(f"{path}: OpenCV writes no video by a name that is not UTF-8")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise OutputError(f"{path}: Permission denied")
        # Here, not at the top: all outputs are imported to show their forms.
        from tutelage.app.outputs import _video_writer

        if path.suffix.lower() == ".mp4":
            _video_writer.ffmpeg_has_h264()  # now: the first frame would wait for it
        self._open_writer = _video_writer.open_writer
        self._path = path
        self._tell = tell
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
        if self._written % _FRAMES_PER_LOOK_AT_DISK == 0:
            _check_space(self._path.parent)
        self._writer.write(annotate(result, *self._size))
        self._written += 1

    def _open(self, image: np.ndarray) -> VideoWriter:
        # Most codecs store colour at half the resolution: even sizes only.
        width, height = (max(2, side // 2 * 2) for side in readable_size(image))
        self._size = (width, height)
        codecs = CODECS[self._path.suffix.lower()]
        found = self._open_writer(self._path, codecs, self._fps, self._size)
        if found is None:
            raise OutputError(f"{self._path}: OpenCV cannot write a video there")
        writer, code = found
        if self._path.suffix.lower() == ".mp4" and code in _DRAWBACKS:
            self._tell(f"{self._path}: written as {_DRAWBACKS[code]}; try: sudo apt install ffmpeg")
        return writer

    def close(self) -> None:
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        # A writer whose disk was full says nothing: what can be read again is what counts.
        capture = cv2.VideoCapture(str(self._path))
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if found < self._written:
            raise OutputError(f"{self._path}: has {found} of {self._written} frames")


def _check_space(folder: Path) -> None:
    if shutil.disk_usage(folder).free < _SPARE_BYTES:
        raise OutputError(f"{folder}: {os.strerror(28)}")  # ENOSPC
