"""The libraries that run lowered graphs leave the user's home directory alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_openvino_neither_writes_into_the_home_nor_sends_data(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs OpenVINO")
    code = (
        "import sys; from tutelage.dpu.engine import runtimes; "
        "assert runtimes._openvino() is not None; "
        "print(sorted(name for name in sys.modules if 'telemetry' in name))"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert "openvino_telemetry" not in done.stdout and done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_onnx_runtime_neither_writes_into_the_home_nor_sends_data(tmp_path: Path) -> None:
    """Otherwise its build for Linux keeps a database there, and a thread that sends it."""
    code = (
        "import dpu, onnxruntime, os, pathlib\n"
        "print({pathlib.Path(f'/proc/self/fd/{fd}').resolve().suffix for fd in range(64)})"
    )
    # Remove the signs by which it recognises CI machines, so that this test shows our own setting.
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**environment, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert ".db" not in done.stdout and done.stderr == ""
    assert list(tmp_path.iterdir()) == []
