"""Measures the load of a stand-in board's DPU. It runs on the board, beside its `vart`.

The host sets the board's sensors from the files written here, see `load.py`.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = "run/dpu-load"  # on the board; one file per process, by its id
CORES = 2
ROW = struct.Struct("3d")  # core seconds so far, jobs in flight, the monotonic time of both


def watch(runner: type) -> None:
    """Count the running jobs of a class of runners."""
    try:
        count = _count(Path("/", FOLDER, str(os.getpid())))
    except OSError:  # the board's load is then invisible
        return
    for name in ("execute_async", "wait"):
        setattr(runner, name, _counted(getattr(runner, name), count))


def _counted(method: Callable[..., Any], count: Callable[[int], None]) -> Callable[..., Any]:
    def counted(*arguments: Any, **named: Any) -> Any:
        count(1)
        try:
            return method(*arguments, **named)
        finally:
            count(-1)

    return counted


def _count(path: Path) -> Callable[[int], None]:
    """Create a process's file; return a function to call when a job begins (1) or ends (-1)."""
    path.write_bytes(ROW.pack(0, 0, time.monotonic()))
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), ROW.size)
    lock = threading.Lock()

    def count(change: int) -> None:
        with lock:
            seconds, jobs, then = ROW.unpack_from(memory)
            now = time.monotonic()
            seconds += min(jobs, CORES) * (now - then)
            ROW.pack_into(memory, 0, seconds, jobs + change, now)

    return count
