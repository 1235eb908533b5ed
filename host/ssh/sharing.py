"""One SSH connection that several commands share: OpenSSH's connection multiplexing.

The first command connects and authenticates; the others go through its socket. Where that cannot
be, each command connects for itself, which is slower and otherwise the same.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

# A socket's path has at most 108 bytes with its final zero, on macOS 104; ssh appends 17 while it
# creates the socket.
_LONGEST = 104 - 1 - 17
_SOCKET = "s"
_IDLE_SECONDS = 120  # after which the connection of a process that was killed ends by itself
_START_SECONDS, _STOP_SECONDS = 60.0, 10.0


class SharedConnection:
    """A connection in the background, with its socket in a private temporary directory.

    Parameters
    ----------
    command : beginning of the ssh command line, options included
    host : user@host, or a name of the configuration

    Attributes
    ----------
    options : further options of ssh that use the connection; empty before `open`
    """

    def __init__(self, command: list[str], host: str) -> None:
        self._command, self._host = command, host
        self._folder: Path | None = None
        self.options: list[str] = []

    def open(self) -> subprocess.CompletedProcess[str] | None:
        """Connect; return how ssh ended, None where no socket can be created.

        The status is 0 where the connection is there. `close` is needed in every case.

        Raises
        ------
        subprocess.TimeoutExpired
            The host does not let anybody in, and does not refuse.
        """
        self._folder = _private_folder()
        if self._folder is None:
            return None
        path = ["-o", f"ControlPath={self._folder / _SOCKET}"]
        start = ["-o", "ControlMaster=yes", "-o", f"ControlPersist={_IDLE_SECONDS}", "-f", "-N"]
        # A file, not a pipe: the process in the background may keep it open.
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            done = subprocess.run(
                [*self._command, *path, *start, self._host],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, text=True,
                timeout=_START_SECONDS,
            )  # fmt: skip
            errors.seek(0)
            done.stderr = errors.read()
        if done.returncode == 0:
            self.options = ["-o", "ControlMaster=no", *path]
        return done

    def close(self) -> None:
        """End the connection and remove its socket."""
        if self.options:
            with suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    [*self._command, *self.options, "-O", "exit", self._host],
                    stdin=subprocess.DEVNULL, capture_output=True, timeout=_STOP_SECONDS,
                )  # fmt: skip
        self.options = []
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _private_folder() -> Path | None:
    """Create a directory for a socket that only this user can enter; None where that fails."""
    for base in dict.fromkeys((tempfile.gettempdir(), "/tmp")):  # noqa: S108
        with suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix="tutelage-", dir=base))
            if len(bytes(folder / _SOCKET)) <= _LONGEST:
                return folder
            folder.rmdir()
    return None
