"""A camera for tests: `v4l2.c`, preloaded into a process, in place of a UVC camera's driver.

    with FakeCamera(tmp_path) as camera:
        subprocess.Popen([...], env=camera.environment())   # finds /dev/video0
        camera.unplug()

It is the driver's user-space interface only, written from the kernel's documentation of V4L2, and
no camera: nothing that runs on it ran on hardware. What it leaves out stands in `v4l2.c`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

SIZES = ((640, 480), (320, 240), (1280, 720))
"""Width and height that the driver offers, as in `v4l2.c`."""

PICTURES = 20
"""JPEGs of each size that are sent in turn where a test gives none of its own."""

_SOURCE = Path(__file__).with_name("v4l2.c")
_GREY_STEP = 10  # between pictures: more than what JPEG changes in a plain one


class Stream(NamedTuple):
    """What a stream was started with."""

    format: str
    width: int
    height: int
    fps: int


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fake-camera-")  # goes when the process ends


@cache
def library() -> Path:
    """The library to preload, compiled once; skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("the stand-in camera needs a C compiler (cc)")
    target = Path(_folder().name) / "v4l2.so"
    options = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command = [compiler, *options, "-o", str(target), str(_SOURCE), "-ldl", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{_SOURCE.name} does not compile:\n{done.stderr}")
    return target


@cache
def _plain_pictures() -> Path:
    """A folder of grey JPEGs for each size, of which each tells its number by its grey."""
    folder = Path(_folder().name) / "frames"
    for width, height in SIZES:
        own = folder / f"{width}x{height}"
        own.mkdir(parents=True)
        for number in range(PICTURES):
            image = np.full((height, width, 3), 20 + _GREY_STEP * number, np.uint8)
            cv2.imwrite(str(own / f"{number:03d}.jpg"), image)
    return folder


def jpeg_number(image: np.ndarray) -> int:
    """Which of the default JPEGs an image is: the frame's number modulo `PICTURES`."""
    return round((float(image.mean()) - 20) / _GREY_STEP)


def yuyv_number(image: np.ndarray) -> int:
    """The number, modulo 220, of a frame that came as YUYV: luma is 16 + number."""
    return round(float(image.mean()) * 219 / 255)


class FakeCamera:
    """A camera in a folder; a context, so that it is gone behind the test.

    Parameters
    ----------
    folder : an empty or new folder for the camera's state
    number : N of its path /dev/videoN
    pictures : JPEG files to send in turn, at any size that is asked for; default plain greys
    """

    def __init__(self, folder: Path, number: int = 0, pictures: Iterable[Path] = ()) -> None:
        self.folder, self.device, self._number = folder, f"/dev/video{number}", number
        self._pictures = list(pictures)

    def __enter__(self) -> FakeCamera:
        library()
        self.folder.mkdir(parents=True, exist_ok=True)
        frames = self.folder / "frames"
        if not self._pictures:
            frames.symlink_to(_plain_pictures())
            return self
        frames.mkdir()
        for index, picture in enumerate(self._pictures):
            shutil.copyfile(picture, frames / f"{index:06d}.jpg")
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()

    def environment(self, *others: FakeCamera) -> dict[str, str]:
        """The environment for a process that shall see this camera, and `others` beside it."""
        cameras = ";".join(f"{camera._number}={camera.folder}" for camera in (self, *others))
        return {**os.environ, "LD_PRELOAD": str(library()), "FAKE_V4L2": cameras}

    def unplug(self) -> None:
        """Take the camera away, also from processes that have it open."""
        (self.folder / "unplugged").touch()

    def plug(self) -> None:
        """Bring it back; who had it open must open it again."""
        (self.folder / "unplugged").unlink(missing_ok=True)

    def corrupt(self, on: bool) -> None:
        """Cut JPEGs off in the middle from now on, or send them whole again."""
        mark = self.folder / "corrupt"
        mark.touch() if on else mark.unlink(missing_ok=True)

    @property
    def log(self) -> list[str]:
        """What the driver was asked for, in order, such as "fps asked 30/1 given 30"."""
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def streams(self) -> list[Stream]:
        """The streams that were started, in order."""
        found = [line.split() for line in self.log if line.startswith("stream ")]
        return [
            Stream(form, *map(int, size.split("x")), int(fps))  # type: ignore[call-arg]
            for _, form, size, fps in found
        ]
