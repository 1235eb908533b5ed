"""Start the RTSP server of rtsp_server.py with the system's Python."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def rtsp_server(port: int) -> Iterator[subprocess.Popen[str]]:
    """Serve rtsp://127.0.0.1:PORT/live; skip the test if the system lacks GStreamer's server."""
    script = str(Path(__file__).with_name("rtsp_server.py"))
    with subprocess.Popen(
        ["/usr/bin/python3", script, str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "listens\n":
            pytest.skip("needs GStreamer's RTSP server for the system's Python (see CONTRIBUTING)")
        try:
            yield process
        finally:
            process.kill()


def free_port() -> int:
    """Return a port of the loopback device that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
