"""The whole program in front of the stand-in V4L2 camera: unplugged, back, and torn frames.

The driver's interface is a stand-in (tests/fake_camera); OpenCV's V4L2 code in front of it is real.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fake_camera.camera import FakeCamera


@pytest.mark.usefixtures("emulation")
def test_a_camera_is_unplugged_and_comes_back(repo_root: Path, tmp_path: Path) -> None:
    with FakeCamera(tmp_path / "camera") as camera:
        command = [sys.executable, str(repo_root / "app" / "classify.py"), "--quiet"]
        command += ["--camera", "0,size=640x480,fps=30,format=MJPG", "--reconnect", "20"]
        command += ["--json", "f.json", "--output", "r.jsonl"]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, **camera.environment()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        rows = tmp_path / "r.jsonl"
        _wait(lambda: _count(rows) >= 10)
        camera.unplug()
        time.sleep(0.6)
        before = _count(rows)
        camera.plug()
        _wait(lambda: _count(rows) >= before + 10)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "gives no more images after" in err and "is back after" in err
    figures: dict[str, Any] = json.loads((tmp_path / "f.json").read_text())
    assert figures["source_figures"]["lost"] == 1 and figures["live"] and figures["interrupted"]
    frames = figures["frames"]
    assert frames["in"] == frames["classified"] + frames["failed"] + frames["dropped"]
    indices = [json.loads(line)["index"] for line in rows.read_text().splitlines()]
    assert indices == sorted(set(indices)) and len(indices) == frames["classified"]
    assert "stopped on request" in out


def _count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline, "nothing more came"
        time.sleep(0.05)
