"""A child process that answers JSON lines: platforms, and the power meter."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tutelage.core.errors import FAILED, TutelageError
from tutelage.core.locations import IMPORT_PATH

_CHUNK_BYTES = 1 << 16
_END_SECONDS = 5.0  # for a process to end by itself


class ProcessError(TutelageError):
    """The process died, did not answer in time, or could not do what it was asked."""

    status = FAILED


class JsonProcess:
    """Runs `python -m ...` in a session of its own, so that Ctrl-C does not reach it.

    Parameters
    ----------
    arguments : behind "python -m"
    log : takes what it writes to standard error
    environment : added to this process's
    """

    def __init__(
        self, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._log = log
        path = os.pathsep.join(p for p in (str(IMPORT_PATH), os.environ.get("PYTHONPATH", "")) if p)
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path, **(environment or {})},
            )  # fmt: skip
        self._pending = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Its answer, within `timeout` seconds.

        Raises
        ------
        ProcessError
            There is none, or it is an error. The text is one line.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise ProcessError(self._death()) from None
        return self.read(timeout)

    def read(self, timeout: float) -> dict[str, Any]:
        """The next line; see `ask`."""
        end = time.monotonic() + timeout
        assert self._process.stdout is not None
        number = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            left = end - time.monotonic()
            if left <= 0 or not select.select([number], [], [], left)[0]:
                self.close()
                raise ProcessError(f"no answer within {timeout:.0f} s")
            data = os.read(number, _CHUNK_BYTES)
            if not data:
                raise ProcessError(self._death())
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ProcessError(answer["error"])
        return answer

    def _death(self) -> str:
        """How it ended, with its last words."""
        try:
            status = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return "the process closed its output"
        if status < 0:
            how = f"the process was ended by {signal.Signals(-status).name}"
        else:
            how = f"the process ended with status {status}"
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        words = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{how}: {words[:200]}" if words else how

    def close(self) -> None:
        """End it, with whatever it has started."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()
        with suppress(OSError):  # what was not sent goes nowhere
            self._process.stdin.close()
