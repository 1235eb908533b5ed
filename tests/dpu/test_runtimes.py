"""The libraries that run lowered graphs, as guests in the user's home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_openvino_neither_writes_into_the_home_nor_sends_data(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs OpenVINO")
    code = (
        "from dpu import runtimes; import sys; assert runtimes._openvino() is not None; "
        "print(sorted(name for name in sys.modules if 'telemetry' in name))"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert "openvino_telemetry" not in done.stdout and done.stderr == ""
    assert list(tmp_path.iterdir()) == []
