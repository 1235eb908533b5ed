"""Video writers: the ffmpeg program if it is installed, or else OpenCV.

OpenCV's FFmpeg often lacks an H.264 encoder, and its VP9 takes ten times as long.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

_PIPE_BYTES = 1 << 20  # Linux's limit for any user; holds most frames, unlike the default 64 KiB
_HANGING_SECONDS = 60.0  # ffmpeg hangs if it takes no frame, or does not end, for this long


class VideoWriter(Protocol):
    """Writer of frames: uint8 (height, width, 3), BGR, all of the same size."""

    def write(self, image: np.ndarray, /) -> object: ...

    def release(self) -> None: ...


class FfmpegWriter:
    """Writer of H.264 with the ffmpeg program, which takes raw frames through a pipe.

    Parameters
    ----------
    path : video file
    fps : frames per second
    size : width and height of the frames, pixels

    Raises
    ------
    OSError
        ffmpeg hangs or ended early. The message has its own reason if it gave one.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `release`)
        width, height = size
        self._process = subprocess.Popen(
            [
                *"ffmpeg -nostdin -loglevel error -y -f rawvideo -pix_fmt bgr24".split(),
                *f"-s {width}x{height} -r {fps} -i pipe:0".split(),
                # ultrafast takes a third of veryfast's CPU time for 1.7 times the bytes.
                *"-c:v libx264 -preset ultrafast -pix_fmt yuv420p -movflags +faststart".split(),
                f"file:{path.resolve()}",
            ],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C must not reach ffmpeg; `release` ends the video
        )

        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        with suppress(OSError):
            fcntl.fcntl(self._process.stdin, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def write(self, image: np.ndarray, /) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        left = np.ascontiguousarray(image).data.cast("B")
        try:
            while left:
                if not select.select([], [pipe], [], _HANGING_SECONDS)[1]:
                    self._process.kill()
                    raise OSError(f"ffmpeg took no frame for {_HANGING_SECONDS:g} s")
                left = left[pipe.write(left) or 0 :]
        except BrokenPipeError:
            self.release()  # raises the reason
            raise OSError("ffmpeg ended before the video did") from None

    def release(self) -> None:
        if self._errors.closed:
            return
        try:
            self._process.communicate(timeout=_HANGING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.seek(0)
        reasons = self._errors.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
        self._errors.close()
        if code := self._process.returncode:
            ended = f"ended with status {code}" if code > 0 else signal.strsignal(-code)
            raise OSError(f"ffmpeg: {reasons[-1] if reasons else ended}")


@cache
def ffmpeg_has_h264() -> bool:
    """Return whether the ffmpeg program is installed and encodes H.264."""
    program = shutil.which("ffmpeg")
    if program is None:
        return False
    try:
        command = [program, "-hide_banner", "-encoders"]
        done = subprocess.run(command, capture_output=True, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b" libx264 " in done.stdout


def open_writer(
    path: Path, codecs: Sequence[str], fps: float, size: tuple[int, int]
) -> tuple[VideoWriter, str] | None:
    """Open a video for writing, with the best codec available.

    Parameters
    ----------
    path : video file
    codecs : FourCCs to try, the best first
    fps : frames per second
    size : width and height of all frames, pixels, even

    Returns
    -------
    The writer and the codec's FourCC; None if none of the codecs can be written there.
    """
    if codecs[0] == "avc1" and ffmpeg_has_h264():
        return FfmpegWriter(path, fps, size), "avc1"
    for code in codecs:
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), fps, size)
        if writer.isOpened():
            return writer, code
    return None
