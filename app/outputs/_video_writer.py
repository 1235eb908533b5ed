"""Writing a video: by the ffmpeg program where it is there, else by OpenCV.

OpenCV's FFmpeg often comes without an encoder for H.264, and its VP9 takes ten times as long.
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

_PIPE_BYTES = 1 << 20  # what Linux lets any user have: most frames at once, not in pieces of 64 KiB
_HANGING_SECONDS = 60.0  # without a frame taken, or for those it still has at the end


class VideoWriter(Protocol):
    """What takes a video's frames: uint8, (height, width, 3), BGR, all of one size."""

    def write(self, image: np.ndarray, /) -> object: ...

    def release(self) -> None: ...


class FfmpegWriter:
    """Writes H.264 with the ffmpeg program, which takes raw frames through a pipe.

    Raises
    ------
    OSError
        ffmpeg ended early, with the reason in its own words where it gave one, or hangs.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `release`)
        width, height = size
        self._process = subprocess.Popen(
            [
                *"ffmpeg -nostdin -loglevel error -y -f rawvideo -pix_fmt bgr24".split(),
                *f"-s {width}x{height} -r {fps} -i pipe:0".split(),
                # A third of veryfast's CPU, which the run needs, for 1.7 times the bytes.
                *"-c:v libx264 -preset ultrafast -pix_fmt yuv420p -movflags +faststart".split(),
                f"file:{path.resolve()}",
            ],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for this program, which ends the video itself
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
            self.release()  # which says why
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
    """Return whether the ffmpeg program is there and encodes H.264; asked once."""
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
    """Open a video for writing, with the best codec there is.

    Parameters
    ----------
    path : of the file
    codecs : FourCCs to try, the best first
    fps : frames per second
    size : width and height of all frames, even

    Returns
    -------
    The writer and the codec's FourCC; None where none of the codecs can be written there.
    """
    if codecs[0] == "avc1" and ffmpeg_has_h264():
        return FfmpegWriter(path, fps, size), "avc1"
    for code in codecs:
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), fps, size)
        if writer.isOpened():
            return writer, code
    return None
