"""Counts how busy the DPU of a stand-in board is. It runs on the board, beside its `vart`.

The board's sensors are moved from outside by what is written here, see `load.py`.
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

FOLDER = "run/dpu-load"  # of the board; one file per process, by its number
CORES = 2
ROW = struct.Struct("3d")  # core seconds so far, jobs under way, the monotonic time of both


def watch(runner: type) -> None:
    """Count the jobs of a class of runners from their start to their end."""
    try:
        count = _count(Path("/", FOLDER, str(os.getpid())))
    except OSError:  # the board's load is then not seen
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
    """Make a process's file; returns what takes a job into account that begins (1) or ends (-1)."""
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
