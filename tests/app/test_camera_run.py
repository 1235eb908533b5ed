"""The whole program with the stand-in V4L2 camera: unplugging, return, and broken frames.

The driver's interface is a stand-in (tests/fake_camera); OpenCV's V4L2 code is real.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.app.waiting import soon
from tests.fake_camera.camera import FakeCamera

pytestmark = pytest.mark.usefixtures("emulation")


@contextmanager
def _start(
    repo_root: Path, camera: FakeCamera, *arguments: str, folder: Path
) -> Iterator[subprocess.Popen[str]]:
    """Start the application on the camera; it is killed if the test leaves it running."""
    command = [sys.executable, str(repo_root / "app" / "classify.py"), "--quiet", *arguments]
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **camera.environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # does nothing if it has already ended


def _line_with(process: subprocess.Popen[str], text: str) -> str:
    """Return the next line on standard error that contains a text."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line.strip()
    pytest.fail(f"never said: {text}")


def test_a_camera_is_unplugged_and_comes_back(repo_root: Path, tmp_path: Path) -> None:
    arguments = ["--camera", "0,size=640x480,fps=30,format=MJPG", "--reconnect", "60"]
    arguments += ["--json", "f.json", "--output", "r.jsonl"]
    with (
        FakeCamera(tmp_path / "camera") as camera,
        _start(repo_root, camera, *arguments, folder=tmp_path) as process,
    ):
        rows = tmp_path / "r.jsonl"
        assert soon(lambda: _count(rows) >= 10)
        camera.unplug()
        err = _line_with(process, "gives no more images after")
        before = _count(rows)
        camera.plug()
        assert soon(lambda: _count(rows) >= before + 10)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "is back after" in err
    figures: dict[str, Any] = json.loads((tmp_path / "f.json").read_text())
    assert figures["source_figures"]["lost"] == 1 and figures["live"] and figures["interrupted"]
    frames = figures["frames"]
    assert frames["in"] == frames["classified"] + frames["failed"] + frames["dropped"]
    indices = [json.loads(line)["index"] for line in rows.read_text().splitlines()]
    assert indices == sorted(set(indices)) and len(indices) == frames["classified"]
    assert "stopped on request" in out


@pytest.mark.parametrize("reconnect", ["0", "1"])
def test_a_service_whose_camera_is_lost_ends_though_its_page_is_open(
    repo_root: Path, tmp_path: Path, reconnect: str
) -> None:
    pytest.importorskip("uvicorn", reason="the live page needs Starlette and uvicorn")
    arguments = ["--camera", "--web", "127.0.0.1:0", "--reconnect", reconnect]
    with (
        FakeCamera(tmp_path / "camera") as camera,
        _start(repo_root, camera, *arguments, folder=tmp_path) as process,
    ):
        url = _line_with(process, "the live page is at").split()[-1]
        with (
            urllib.request.urlopen(url, timeout=60) as page,
            urllib.request.urlopen(url + "events", timeout=60) as events,
            urllib.request.urlopen(url + "video", timeout=60),  # open, and never read
        ):
            assert page.status == 200
            camera.unplug()
            out, err = process.communicate(timeout=60)
            last = events.read().decode().splitlines()[-2]
    assert process.returncode == 1, (out, err)
    assert "/dev/video0 gives no more images after" in out
    assert "it does not exist, no camera is connected" in out
    assert "it does not exist" in json.loads(last.removeprefix("data: "))["error"]


@pytest.mark.parametrize("where", ["file", "environment"])
def test_the_token_of_a_service_is_needed_and_not_shown(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    pytest.importorskip("uvicorn", reason="the live page needs Starlette and uvicorn")
    token = "0123456789-abcdefghij"
    arguments = ["--camera", "--web", "127.0.0.1:0"]
    if where == "file":
        (tmp_path / "token").write_text(token + "\n")
        (tmp_path / "token").chmod(0o600)
        arguments += ["--web-token-file", "token"]
    else:
        monkeypatch.setenv("TUTELAGE_WEB_TOKEN", token)
    with (
        FakeCamera(tmp_path / "camera") as camera,
        _start(repo_root, camera, *arguments, folder=tmp_path) as process,
    ):
        url = _line_with(process, "the live page is at").split()[-1]
        assert url.endswith("/")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(url + "state.json", timeout=60)
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=60) as page:
            assert page.status == 200
        assert token not in Path(f"/proc/{process.pid}/cmdline").read_text()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and token not in out + err


def test_a_camera_that_another_program_has_is_busy(repo_root: Path, tmp_path: Path) -> None:
    with FakeCamera(tmp_path / "camera") as camera:
        camera_has_pictures = "import cv2; c = cv2.VideoCapture(0, cv2.CAP_V4L2); c.read()"
        with subprocess.Popen(
            [sys.executable, "-c", f"{camera_has_pictures}; print('has', flush=True); input()"],
            env={**os.environ, **camera.environment()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdout is not None and other.stdout.readline() == "has\n"
            with _start(repo_root, camera, "--camera", folder=tmp_path) as process:
                _, err = process.communicate(timeout=60)
            other.communicate("\n", timeout=60)
    assert process.returncode == 1
    assert "/dev/video0" in err and "another program uses it" in err


def _count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
