"""Child process that answers requests in JSON lines, for platforms and the power meter."""

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

from tutelage.core.errors import FAILED, TutelageError, signal_text
from tutelage.core.locations import IMPORT_PATH

_CHUNK_BYTES = 1 << 16
_END_SECONDS = 5.0  # to wait for a process that has closed its output


class ProcessError(TutelageError):
    """The process died, did not answer in time, or answered with an error."""

    status = FAILED


class JsonProcess:
    """A process `python -m ...` in a separate session, so that Ctrl-C does not reach it.

    Parameters
    ----------
    arguments : after "python -m"
    log : file for its standard error
    environment : variables to add to those of this process
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
        """Process id."""
        return self._process.pid

    def ask(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Send a request and return the answer.

        Parameters
        ----------
        timeout : s

        Raises
        ------
        ProcessError
            There is no answer in time, or it is an error. The text is one line.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise ProcessError(self._death()) from None
        return self.read(timeout)

    def read(self, timeout: float) -> dict[str, Any]:
        """Return the next line of the process, see `ask`."""
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
        """Return how the process ended, with the last line of its log."""
        try:
            status = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return "the process closed its output"
        if status < 0:
            how = f"the process was ended by {signal_text(-status)}"
        else:
            how = f"the process ended with status {status}"
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        words = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{how}: {words[:200]}" if words else how

    def close(self) -> None:
        """Kill the process and its children."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()
        with suppress(OSError):  # a request that was not sent yet cannot be flushed
            self._process.stdin.close()
