"""Runs of `tutelage train` in child processes, which end with the process that started them.

python -m tutelage.host.train.training_process PARENT RUN.toml --output DIR ...
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
from tutelage.core.errors import FAILED
from tutelage.core.files import write_file
from tutelage.core.messages import run_command, run_program
from tutelage.core.toml_file import to_toml
from tutelage.host.search.worker import RunFailed
from tutelage.host.train.config import make_config
from tutelage.host.train.run_files import BEST, CHECKPOINT
from tutelage.host.train.run_identity import is_run_of, starts

_THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class TrainingProcesses:
    """Training runs in parallel, each with its own name and in its own process.

    Parameters
    ----------
    jobs : number of runs at a time; each has an equal share of the cores as its threads
    """

    def __init__(self, jobs: int = 1) -> None:
        self._threads = str(max(1, len(os.sched_getaffinity(0)) // jobs))
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._ended = False

    def run(self, name: str, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """Train with `config` and write to `folder`; a run that was killed there is resumed.

        The checkpoint of a run with another configuration is removed first.

        Parameters
        ----------
        name : of the run, for `end`
        config : the configuration of `tutelage train`
        folder : output directory of the run, created if missing

        Returns
        -------
        A dictionary with accuracy and teacher_accuracy (% of the test set), validation_accuracy (%
        of the validation images, or None) and seconds (duration of this process).

        Raises
        ------
        RunFailed
            The run failed, or was ended by `end` or `end_all`; the message has the last line of its
            error output.
        """
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "config.toml"
        if file.exists():
            _discard_other_run(file, config)
        write_file(file, to_toml(config))
        start = time.monotonic()
        process = self._start(name, [str(file), "--output", str(folder), "--resume", "--json"])
        output, errors = process.communicate()
        with self._lock:
            self._running.pop(name, None)
        if process.returncode:
            lines = errors.strip().splitlines() or [f"exit {process.returncode}"]
            raise RunFailed(f"{name}: {lines[-1]}")
        result = _result_in(output, name)
        return {
            "accuracy": result["accuracy"],
            "validation_accuracy": result["validation_accuracy"],
            "teacher_accuracy": result["teacher_accuracy"],
            "seconds": round(time.monotonic() - start, 1),
        }

    def _start(self, name: str, arguments: Sequence[str]) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", __name__, str(os.getpid()), *arguments]
        environment = {**os.environ, **dict.fromkeys(_THREAD_LIMITS, self._threads)}
        with self._lock:
            if self._ended:
                raise RunFailed(f"{name}: interrupted")
            process = subprocess.Popen(command, env=environment, text=True,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
            self._running[name] = process
        return process

    def end(self, name: str) -> None:
        """Kill a run, which may be resumed later."""
        with self._lock:
            if process := self._running.get(name):
                process.kill()

    def end_all(self) -> None:
        """Kill all runs, and refuse to start new ones."""
        with self._lock:
            self._ended = True
            for process in self._running.values():
                process.kill()


def _result_in(output: str, name: str) -> dict[str, Any]:
    """Return the JSON object at the end of a run's output, which a user's network may write to."""
    start = output.rfind("\n{\n") + 1  # inner objects are indented
    try:
        result: dict[str, Any] = json.loads(output[start:])
    except ValueError as error:
        raise RunFailed(f"{name}: no result at the end of its output: {error}") from error
    return result


def _discard_other_run(file: Path, config: Mapping[str, Any]) -> None:
    """Remove the checkpoint beside a run's config.toml if `config` cannot continue it.

    It is of another configuration, or older than weights that the run starts from.
    """
    wanted, checkpoint = make_config(config), file.with_name(CHECKPOINT)
    newest = max((path.stat().st_mtime for path in starts(wanted) if path.exists()), default=0.0)
    if checkpoint.exists() and checkpoint.stat().st_mtime >= newest and is_run_of(file, wanted):
        return
    for name in (CHECKPOINT, BEST):
        file.with_name(name).unlink(missing_ok=True)


def main(arguments: Sequence[str]) -> int:
    """Run `tutelage train`, and return its exit status.

    Parameters
    ----------
    arguments : the id of the parent process, and the arguments of `tutelage train`
    """
    from tutelage.host.cli.command import run

    parent, *options = arguments
    _end_with(int(parent))
    return run_program(lambda: run_command(PROGRAM, lambda: run("train", options)))


def _end_with(parent: int) -> None:
    """Make the kernel kill this process when `parent` ends, even by SIGKILL (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call
            sys.exit(FAILED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
