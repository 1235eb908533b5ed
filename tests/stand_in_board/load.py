"""Sets a stand-in board's sensors from the load of its DPU."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.stand_in_board.dpu_load import CORES, FOLDER, ROW
from tests.stand_in_board.sensors import Sensors

_SECONDS = 0.02  # between two updates


class LoadFollower:
    """Updates the sensors of a running board, until `stop`.

    Parameters
    ----------
    root : the board's filesystem as a local path
    """

    def __init__(self, root: Path) -> None:
        self._root, self._sensors = root, Sensors(root / "sys")
        self._fixed: set[str] = set()
        self._lock = threading.Lock()  # guards the sensors' files
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def fix(self, rail: str, watts: float) -> None:
        """Fix a rail's power, W, independent of the DPU."""
        with self._lock:
            self._fixed.add(rail)
            self._sensors.set_power(rail, watts)

    def free(self, rail: str) -> None:
        """Let a rail follow the DPU again."""
        with self._lock:
            self._fixed.discard(rail)

    def _run(self) -> None:
        before, then = dict(self._seconds()), time.monotonic()
        while not self._ended.wait(_SECONDS):
            after, now = dict(self._seconds()), time.monotonic()
            busy = sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())
            cores = round(min(CORES, max(0.0, busy / (now - then))), 2)
            before, then = after, now
            with self._lock:
                try:
                    self._sensors.set_load(cores, self._fixed)
                except (OSError, ValueError):  # the sensors were removed
                    continue

    def _seconds(self) -> Iterator[tuple[str, float]]:
        """Return the core seconds of each running process."""
        for path in (self._root / FOLDER).glob("*"):
            try:
                seconds, jobs, then = ROW.unpack(path.read_bytes())
            except (OSError, struct.error):
                continue
            if (self._root / "proc" / path.name).exists():
                yield path.name, seconds + min(jobs, CORES) * max(0.0, time.monotonic() - then)
