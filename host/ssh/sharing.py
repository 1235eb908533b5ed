"""One SSH connection for several commands, by OpenSSH's connection multiplexing.

The first command connects and authenticates; the others use its socket. If that is not possible,
each command makes its own connection, which is only slower.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

# The path of a socket has at most 108 bytes with its final zero, on macOS 104; ssh appends 17 while
# it creates the socket.
_LONGEST = 104 - 1 - 17
_SOCKET = "s"
_IDLE_SECONDS = 120  # after which the connection ends if this process was killed
_START_SECONDS, _STOP_SECONDS = 60.0, 10.0


class SharedConnection:
    """A connection in the background, with its socket in a private temporary directory.

    Parameters
    ----------
    command : beginning of the ssh command line, including options
    host : user@host, or a name in ssh's configuration

    Attributes
    ----------
    options : further options by which ssh uses the connection; empty before `open`
    """

    def __init__(self, command: list[str], host: str) -> None:
        self._command, self._host = command, host
        self._folder: Path | None = None
        self.options: list[str] = []

    def open(self) -> subprocess.CompletedProcess[str] | None:
        """Connect; return ssh's result, whose status is 0 on success; None if there is no socket.

        `close` must be called in every case.

        Raises
        ------
        subprocess.TimeoutExpired
            The host neither accepts nor refuses the connection in time.
        """
        self._folder = _private_folder()
        if self._folder is None:
            return None
        path = ["-o", f"ControlPath={self._folder / _SOCKET}"]
        start = ["-o", "ControlMaster=yes", "-o", f"ControlPersist={_IDLE_SECONDS}", "-f", "-N"]
        # A file instead of a pipe, which the process in the background may keep open.
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
    """Create a directory for a socket that only this user can enter; None if that fails."""
    for base in dict.fromkeys((tempfile.gettempdir(), "/tmp")):  # noqa: S108
        with suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix="tutelage-", dir=base))
            if len(bytes(folder / _SOCKET)) <= _LONGEST:
                return folder
            folder.rmdir()
    return None
