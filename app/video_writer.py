"""Writing a video: by the ffmpeg program where it is there, else by OpenCV.

OpenCV's FFmpeg often comes without an encoder for H.264, and its VP9 takes ten times as long.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

VIDEO_CODES = {".mp4": ("avc1", "vp09", "mp4v"), ".avi": ("MJPG",), ".mkv": ("mp4v",)}
"""By suffix the codecs of a video that OpenCV is asked for, the best first."""

NOT_IN_BROWSERS = {"mp4v": "MPEG-4 Part 2"}
"""Codecs of a .mp4 that browsers do not play, with their names."""

_END_SECONDS = 60.0  # for the frames that an encoder still has when the last one was given


class VideoWriter(Protocol):
    """What takes a video's frames: uint8, (height, width, 3), BGR, all of one size."""

    def write(self, image: np.ndarray, /) -> object: ...

    def release(self) -> None: ...


class FfmpegWriter:
    """Writes H.264 with the ffmpeg program, which takes raw frames through a pipe.

    Raises
    ------
    OSError
        ffmpeg ended early: in `write`, or in `release` with the reason in its own words.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `release`)
        width, height = size
        self._process = subprocess.Popen(
            [
                *"ffmpeg -nostdin -loglevel error -y -f rawvideo -pix_fmt bgr24".split(),
                *f"-s {width}x{height} -r {fps} -i pipe:0".split(),
                *"-c:v libx264 -preset veryfast -pix_fmt yuv420p -movflags +faststart".split(),
                f"file:{path.resolve()}",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for this program, which ends the video itself
        )

    def write(self, image: np.ndarray, /) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(np.ascontiguousarray(image).data)
        except BrokenPipeError:
            self.release()  # which says why
            raise OSError("ffmpeg ended before the video did") from None

    def release(self) -> None:
        if self._errors.closed:
            return
        try:
            self._process.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.seek(0)
        reasons = self._errors.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
        self._errors.close()
        if self._process.returncode:
            raise OSError(f"ffmpeg: {reasons[-1] if reasons else self._process.returncode}")


@cache
def _ffmpeg_has_h264() -> bool:
    program = shutil.which("ffmpeg")
    if program is None:
        return False
    try:
        command = [program, "-hide_banner", "-encoders"]
        done = subprocess.run(command, capture_output=True, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b" libx264 " in done.stdout


def open_writer(path: Path, fps: float, size: tuple[int, int]) -> tuple[VideoWriter, str] | None:
    """Open a video for writing, with the best codec there is.

    Parameters
    ----------
    path : its suffix is one of `VIDEO_CODES`
    fps : frames per second
    size : width and height of all frames, even

    Returns
    -------
    The writer and the codec's FourCC; None where no codec of that suffix can be written there.
    """
    codes = VIDEO_CODES[path.suffix.lower()]
    if codes[0] == "avc1" and _ffmpeg_has_h264():
        return FfmpegWriter(path, fps, size), "avc1"
    for code in codes:
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), fps, size)
        if writer.isOpened():
            return writer, code
    return None
