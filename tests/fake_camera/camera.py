"""A camera for tests: `v4l2.c`, preloaded into a process, replaces a UVC camera's driver.

    with FakeCamera(tmp_path) as camera:
        subprocess.Popen([...], env=camera.environment())   # finds /dev/video0
        camera.unplug()

It is only the driver's user-space interface, written from the kernel's documentation of V4L2, and
not a camera: nothing that runs with it ran on hardware. `v4l2.c` lists what it leaves out.
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
"""JPEGs of each size that are sent in turn if a test gives none."""

_SOURCE = Path(__file__).with_name("v4l2.c")
_GREY_STEP = 10  # between pictures: more than the JPEG errors of a plain one


class Stream(NamedTuple):
    """The settings with which a stream was started."""

    format: str
    width: int
    height: int
    fps: int


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fake-camera-")  # removed when the process ends


@cache
def library() -> Path:
    """Return the library to preload, compiled once; skip the test without a C compiler."""
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
    """A folder of grey JPEGs for each size, whose grey values encode their numbers."""
    folder = Path(_folder().name) / "frames"
    for width, height in SIZES:
        own = folder / f"{width}x{height}"
        own.mkdir(parents=True)
        for number in range(PICTURES):
            image = np.full((height, width, 3), 20 + _GREY_STEP * number, np.uint8)
            cv2.imwrite(str(own / f"{number:03d}.jpg"), image)
    return folder


def jpeg_number(image: np.ndarray) -> int:
    """Return the number of the default JPEG that an image shows: the frame's modulo `PICTURES`."""
    return round((float(image.mean()) - 20) / _GREY_STEP)


def yuyv_number(image: np.ndarray) -> int:
    """Return the number, modulo 220, of a YUYV frame: luma is 16 + number."""
    return round(float(image.mean()) * 219 / 255)


class FakeCamera:
    """A camera in a folder; a context manager that removes it after the test.

    Parameters
    ----------
    folder : an empty or new folder for the camera's state
    number : N of its path /dev/videoN
    pictures : JPEG files to send in turn, at any requested size; default: plain greys
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
        """Return the environment for a process that sees this camera, and `others`."""
        cameras = ";".join(f"{camera._number}={camera.folder}" for camera in (self, *others))
        return {**os.environ, "LD_PRELOAD": str(library()), "FAKE_V4L2": cameras}

    def unplug(self) -> None:
        """Remove the camera, also from processes that have it open."""
        (self.folder / "unplugged").touch()

    def plug(self) -> None:
        """Plug the camera in again; processes must reopen it."""
        (self.folder / "unplugged").unlink(missing_ok=True)

    def corrupt(self, on: bool) -> None:
        """Truncate JPEGs from now on, or send them complete again."""
        mark = self.folder / "corrupt"
        mark.touch() if on else mark.unlink(missing_ok=True)

    @property
    def log(self) -> list[str]:
        """Return the requests to the driver, in order, such as "fps asked 30/1 given 30"."""
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def streams(self) -> list[Stream]:
        """Return the streams that were started, in order."""
        found = [line.split() for line in self.log if line.startswith("stream ")]
        return [
            Stream(form, *map(int, size.split("x")), int(fps))  # type: ignore[call-arg]
            for _, form, size, fps in found
        ]
