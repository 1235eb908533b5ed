"""A run of `tutelage train` in a process of its own, which ends with the one that started it.

python -m tutelage.host.search.training_process PARENT RUN.toml --output DIR ...
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.core.commands import PROGRAM
from tutelage.core.errors import FAILED, TutelageError
from tutelage.core.messages import run_command, run_program
from tutelage.core.toml_file import to_toml

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class TrainingFailed(TutelageError):
    """A run ended without a result; the text is the last line that it wrote."""

    status = FAILED


class TrainingProcesses:
    """Runs that go on at the same time, each by its name and on one thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._ended = False

    def run(self, name: str, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """Train as `config` says into `folder`; a run that was killed there goes on.

        Returns
        -------
        accuracy and teacher_accuracy in percent of the test set, validation_accuracy in percent of
        the images for validation, None where there is none; seconds

        Raises
        ------
        TrainingFailed
            It failed, or was ended.
        """
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "config.toml"
        file.write_text(to_toml(config), encoding="utf-8")
        start = time.monotonic()
        process = self._start(name, [str(file), "--output", str(folder), "--resume", "--json"])
        output, errors = process.communicate()
        with self._lock:
            self._running.pop(name, None)
        if process.returncode:
            lines = errors.strip().splitlines() or [f"exit {process.returncode}"]
            raise TrainingFailed(f"{name}: {lines[-1]}")
        result: dict[str, Any] = json.loads(output)
        return {
            "accuracy": result["accuracy"],
            "teacher_accuracy": result["teacher_accuracy"],
            "validation_accuracy": result["validation_accuracy"],
            "seconds": round(time.monotonic() - start, 1),
        }

    def _start(self, name: str, arguments: Sequence[str]) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", __name__, str(os.getpid()), *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with self._lock:
            if self._ended:
                raise TrainingFailed(f"{name}: interrupted")
            process = subprocess.Popen(command, env=environment, text=True,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
            self._running[name] = process
        return process

    def end(self, name: str) -> None:
        """Kill a run, which a later one may resume."""
        with self._lock:
            if process := self._running.get(name):
                process.kill()

    def end_all(self) -> None:
        """Kill all runs, and let none start from now on."""
        with self._lock:
            self._ended = True
            for process in self._running.values():
                process.kill()


def main(arguments: Sequence[str]) -> int:
    """Train; `arguments` are the parent's process and those of `tutelage train`."""
    from tutelage.host.cli.command import run

    parent, *options = arguments
    _end_with(int(parent))
    return run_program(lambda: run_command(PROGRAM, lambda: run("train", options)))


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends, be it by kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before
            sys.exit(FAILED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
