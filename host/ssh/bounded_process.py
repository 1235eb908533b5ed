"""Programs with untrusted output, of which a limited amount is kept in memory."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from tutelage.core.errors import FAILED, TutelageError

ERRORS_SECONDS = 2.0
"""Time to wait for the end of a program's error output after the program has ended, s: ssh may
leave a connection in the background that keeps it open."""

_CHUNK = 1 << 16


class Reader(threading.Thread):
    """Background reader of a pipe, which keeps its first bytes and discards the rest.

    Parameters
    ----------
    pipe : binary pipe of a process; closed at its end
    most : number of bytes to keep
    full : called once if there are more
    """

    def __init__(self, pipe: IO[bytes], most: int, full: Callable[[], None] | None = None) -> None:
        super().__init__(daemon=True)
        self._pipe, self._most, self._full = pipe, most, full
        self._kept = bytearray()
        self.start()

    def run(self) -> None:
        with self._pipe, suppress(OSError, ValueError):
            while chunk := self._pipe.read1(_CHUNK):  # type: ignore[attr-defined]
                room = self._most - len(self._kept)
                self._kept += chunk[: max(room, 0)]
                if len(chunk) > room and self._full is not None:
                    self._full()
                    self._full = None

    def text(self, seconds: float | None = None) -> str:
        """Wait for the end of the pipe, for at most `seconds`; return the kept bytes as text."""
        self.join(seconds)
        return self._kept.decode(errors="replace")


class TooMuchOutput(TutelageError):
    """A program was ended because it wrote more than the limit."""

    status = FAILED


class ProgramsEnded(TutelageError):
    """A program was not started because `Programs.end` had been called."""

    status = FAILED


class Programs:
    """Programs that several threads start, so that an interrupt can end all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: list[subprocess.Popen[bytes]] = []
        self._ended = False

    def start(self, command: list[str], **pipes: int) -> subprocess.Popen[bytes]:
        """Start a program as `subprocess.Popen` does; raise ProgramsEnded after `end`."""
        with self._lock:
            if self._ended:
                raise ProgramsEnded("interrupted")
            process = subprocess.Popen(command, **pipes)  # type: ignore[call-overload]
            self._started.append(process)
        return process

    def end(self) -> None:
        """Kill all running programs, and refuse to start more."""
        with self._lock:
            self._ended = True
            for process in self._started:
                process.kill()


def run_bounded(
    command: list[str],
    text: str,
    seconds: float | None,
    most: int,
    programs: Programs | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program like `subprocess.run`, with bounded output.

    Parameters
    ----------
    command : the program and its arguments
    text : its standard input
    seconds : time limit, s; None for none
    most : limit of its standard output, and of its error output, bytes
    programs : group of programs to add it to

    Raises
    ------
    ProgramsEnded
        The group had been ended.
    TooMuchOutput
        The program exceeded the limit of its standard output, and was killed.
    subprocess.TimeoutExpired
        The program exceeded the time limit, and was killed.
    """
    too_much = threading.Event()
    process = (programs or Programs()).start(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin and process.stdout and process.stderr

    def end() -> None:
        too_much.set()
        process.kill()

    output, errors = Reader(process.stdout, most, end), Reader(process.stderr, most)
    threading.Thread(target=_feed, args=(process.stdin, text), daemon=True).start()
    try:
        process.wait(seconds)
    except BaseException:
        process.kill()
        process.wait()
        raise
    printed, complaint = output.text(), errors.text(ERRORS_SECONDS)
    if too_much.is_set():
        raise TooMuchOutput(f"{command[0]} printed more than {most:,} bytes")
    return subprocess.CompletedProcess(command, process.returncode, printed, complaint)


def limited_files(command: list[str], most: int) -> list[str]:
    """Return the command line of a program that cannot write files of more than `most` bytes."""
    # POSIX counts in blocks of 512 bytes. A lower limit that exists already remains.
    script = 'ulimit -f "$1" 2> /dev/null; shift; exec "$@"'
    return ["sh", "-c", script, "sh", str(-(-most // 512)), *command]


def _feed(pipe: IO[bytes], text: str) -> None:
    with suppress(OSError, ValueError), pipe:
        pipe.write(text.encode())
