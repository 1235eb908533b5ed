"""The stand-in camera, read through OpenCV's own V4L2 backend in a separate process.

This tests the part of the driver's user-space interface that OpenCV uses, without a camera or a
kernel driver.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.fake_camera.camera import PICTURES, FakeCamera, Stream, library

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="V4L2 is Linux's")

HEAD = """
import json, os, subprocess, sys, time
from pathlib import Path
import cv2
from tests.fake_camera.camera import jpeg_number, yuyv_number
def ask(capture, code, width, height, fps):
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*code))
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
    capture.set(cv2.CAP_PROP_FPS, fps)
"""


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[FakeCamera]:
    with FakeCamera(tmp_path / "camera") as one:
        yield one


@contextmanager
def _start(
    repo_root: Path, camera: FakeCamera, script: str, *others: FakeCamera
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HEAD + script]
    environment = camera.environment(*others) | {"PYTHONPATH": str(repo_root)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # does nothing if it has already ended


def _run(repo_root: Path, camera: FakeCamera, script: str, *others: FakeCamera) -> Any:
    """Return the last line that the script printed, as JSON."""
    with _start(repo_root, camera, script, *others) as process:
        out, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    return json.loads(out.splitlines()[-1])


def test_the_driver_gets_the_requested_settings(repo_root: Path, camera: FakeCamera) -> None:
    found = _run(
        repo_root,
        camera,
        """
capture = cv2.VideoCapture(0, cv2.CAP_V4L2)
ask(capture, "MJPG", 1280, 720, 30)
first, began = capture.read()[1], time.monotonic()
images = [capture.read()[1] for _ in range(20)]
seconds = time.monotonic() - began
print(json.dumps([seconds, first.shape, [jpeg_number(image) for image in images]]))
""",
    )
    seconds, shape, numbers = found
    assert camera.streams == [Stream("MJPG", 1280, 720, 30)]
    assert "fps asked 30/1 given 30" in camera.log and camera.log[-2:] == ["stop", "close"]
    assert shape == [720, 1280, 3]
    # In order; if this machine stalls, pictures may be lost, as with a real camera.
    steps = [(b - a) % PICTURES for a, b in pairwise(numbers)]
    assert all(steps) and 1 in steps
    assert seconds >= 0.9 * 19 / 30


def test_raw_pictures_by_path(repo_root: Path, camera: FakeCamera) -> None:
    shape, numbers, rate = _run(
        repo_root,
        camera,
        """
capture = cv2.VideoCapture("/dev/video0", cv2.CAP_V4L2)
capture.set(cv2.CAP_PROP_FPS, 60)
images = [capture.read()[1] for _ in range(20)]
numbers = [yuyv_number(image) for image in images]
print(json.dumps([images[0].shape, numbers, capture.get(cv2.CAP_PROP_FPS)]))
""",
    )
    assert (shape, rate) == ([480, 640, 3], 60)
    assert numbers == sorted(set(numbers))
    assert camera.streams == [Stream("YUYV", 640, 480, 60)]


def test_unsupported_settings_become_supported_ones(repo_root: Path, camera: FakeCamera) -> None:
    found = _run(
        repo_root,
        camera,
        """
capture, found = cv2.VideoCapture(0, cv2.CAP_V4L2), []
for asked in (("YUYV", 1280, 720, 30), ("MJPG", 1000, 700, 29), ("MJPG", 10, 10, 1)):
    ask(capture, *asked)
    found.append([capture.get(p) for p in (3, 4, 5)])
print(json.dumps(found))
""",
    )
    assert found == [[1280, 720, 10], [1280, 720, 30], [320, 240, 5]]


def test_unplugged_while_it_runs_and_plugged_in_again(repo_root: Path, camera: FakeCamera) -> None:
    script = """
def say(*words): print(*words, flush=True)
capture = cv2.VideoCapture(0, cv2.CAP_V4L2)
say(capture.read()[0])
while capture.read()[0]: pass
say("lost", Path("/dev/video0").exists(), cv2.VideoCapture(0, cv2.CAP_V4L2).isOpened())
sys.stdin.readline()
say(capture.read()[0])
capture.release()
while not capture.open(0, cv2.CAP_V4L2): time.sleep(0.02)
say("back", capture.read()[0], Path("/dev/video0").exists())
"""
    with _start(repo_root, camera, script) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "True\n"
        camera.unplug()
        assert process.stdout.readline() == "lost False False\n"
        camera.plug()
        print("plugged in", file=process.stdin, flush=True)
        assert process.stdout.readline() == "False\n"  # open descriptors stay dead
        assert process.stdout.readline() == "back True True\n"
        assert process.wait(timeout=30) == 0
    assert len(camera.streams) == 2


def test_jpegs_that_break_off(repo_root: Path, tmp_path: Path) -> None:
    picture = tmp_path / "noise.jpg"
    noise = np.random.default_rng(1).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    assert cv2.imwrite(str(picture), noise)
    script = """
capture = cv2.VideoCapture(0, cv2.CAP_V4L2)
ask(capture, "MJPG", 320, 240, 60)
capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
def length():
    data = capture.read()[1].tobytes()
    return data.rfind(bytes([0xff, 0xd9])) + 2
whole = length()
mark = Path(os.environ["FAKE_V4L2"].partition("=")[2]) / "corrupt"
mark.touch()
cut = [length() for _ in range(8)][-1]
mark.unlink()
print(json.dumps([whole, cut, [length() for _ in range(8)][-1]]))
"""
    with FakeCamera(tmp_path / "camera", pictures=[picture]) as camera:
        whole, cut, again = _run(repo_root, camera, script)
    assert whole == again == picture.stat().st_size
    assert cut < whole


def test_it_is_among_the_devices(repo_root: Path, camera: FakeCamera, tmp_path: Path) -> None:
    script = """
import glob
path = Path("/dev/video41")
print(json.dumps([
    path.exists(), os.access(path, os.R_OK | os.W_OK), path.exists() and path.is_char_device(),
    sorted(map(str, Path("/dev").glob("video4?"))), sorted(glob.glob("/dev/video4[0-9]")),
    Path("/dev/video42").exists(), Path("/dev/null").exists(), "null" in os.listdir("/dev"),
]))
"""
    with FakeCamera(tmp_path / "other", number=41) as other:
        there = ["/dev/video41"]
        found = _run(repo_root, camera, script, other)
        assert found == [True, True, True, there, there, False, True, True]
        other.unplug()
        found = _run(repo_root, camera, script, other)
        assert found == [False, False, False, [], [], False, True, True]


def test_one_program_at_a_time_has_the_pictures(repo_root: Path, camera: FakeCamera) -> None:
    script = """
first, second = (cv2.VideoCapture(0, cv2.CAP_V4L2) for _ in range(2))
found = [first.read()[0], second.isOpened() and second.read()[0]]
subprocess.run(["true"], check=True)  # a child takes no camera with it
found.append(first.read()[0])
first.release()
print(json.dumps([*found, cv2.VideoCapture(0, cv2.CAP_V4L2).read()[0]]))
"""
    assert _run(repo_root, camera, script) == [True, False, True, True]


def test_a_slow_reader_finds_old_pictures(repo_root: Path, camera: FakeCamera) -> None:
    """The buffers keep the first frames, and later ones are lost, as with a real driver."""
    numbers = _run(
        repo_root,
        camera,
        """
capture = cv2.VideoCapture(0, cv2.CAP_V4L2)
capture.set(cv2.CAP_PROP_FPS, 60)
capture.read()
time.sleep(0.5)
print(json.dumps([yuyv_number(capture.read()[1]) for _ in range(6)]))
""",
    )
    assert numbers[0] < 10 and numbers[-1] >= 30


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match="needs a C compiler"):
        library.__wrapped__()  # not what an earlier test compiled
