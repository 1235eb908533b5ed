"""A machine that is reached by SSH: run a command there, or follow one.

    with Remote("xilinx@board", None) as remote:        # one connection for all that follows
        remote.sh("uname -m")                           # standard output as text
        push(remote, Path("stage"), "tutelage/stage")   # see `tutelage.host.ssh.transfer`

ssh and rsync are the system's, with the user's own configuration (~/.ssh/config, agents, jump
hosts), except what would disturb a command: RemoteCommand, RequestTTY, LocalCommand and some more
are off.
Nothing is asked for on the terminal, and host keys are always checked. What the other side sends is
not trusted: output is bounded. Text that a login file there prints in front of an answer is cut off
and kept in `noise`; rsync fails of it.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from tutelage.host.ssh.advice import NOISE, is_noise, refusal
from tutelage.host.ssh.answer_marker import Marker
from tutelage.host.ssh.bounded_process import (
    ERRORS_SECONDS,
    Programs,
    ProgramsEnded,
    Reader,
    TooMuchOutput,
    run_bounded,
)
from tutelage.host.ssh.errors import AccessRefused, ConnectionLost, RemoteError, telling_line
from tutelage.host.ssh.settings import ssh_command, ssh_settings
from tutelage.host.ssh.sharing import SharedConnection

SSH_OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=2",
    "RemoteCommand=none",
    "RequestTTY=no",
    "PermitLocalCommand=no",
    "LogLevel=INFO",
)
"""Options of ssh that notice within seconds when a host does not answer, or no longer, and turn
off the user's settings that would come between a command and its output."""

# The same, but OpenSSH before 8.7 ends where it is given one of them: keyword -> its default.
_NEWER_OPTIONS = {"forkafterauthentication": "no", "stdinnull": "no"}

STEP_SECONDS = 600.0
"""How long `Remote.sh` waits for a command that its caller gives no time."""

SSH_LOST = 255
"""ssh's status where the connection was refused or lost."""

_MOST_OUTPUT, _MOST_ERRORS = 16 << 20, 1 << 16  # of a command, in bytes


class Remote:
    """One host.

    Parameters
    ----------
    host : user@host, or a name of the configuration
    config : file for ssh -F; None for the user's own
    programs : those of which its ssh and rsync are, which another thread may end

    Attributes
    ----------
    noise : text that came in front of an answer, "" so far
    """

    def __init__(self, host: str, config: Path | None, programs: Programs | None = None) -> None:
        self.host = host
        self._programs = programs or Programs()
        self.noise = ""
        self._config = config
        self._own = ssh_command(config)
        settings = ssh_settings(host, config)
        newer = [f"{name}={default}" for name, default in _NEWER_OPTIONS.items()
                 if settings.get(name, [default]) != [default]]  # fmt: skip
        for option in (*SSH_OPTIONS, *newer):
            self._own += ["-o", option]
        self._shares_itself = "controlpath" in settings
        self._shared = SharedConnection(self._own, host)

    def __enter__(self) -> Remote:
        """Connect; all commands until the block's end share that connection, where that can be.

        A ControlPath in the user's own configuration is left as it is: those who have one share
        connections already, or want to share none.

        Raises
        ------
        ConnectionLost
            The host is not reached, or refuses.
        """
        if self._shares_itself:
            return self
        try:
            done = self._shared.open()
            if done is not None:
                self.raise_for(done.returncode, "ssh", done.stderr)
        except BaseException as error:
            self._shared.close()
            if isinstance(error, subprocess.TimeoutExpired):
                raise ConnectionLost(f"no answer within {error.timeout:g} s") from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._shared.close()

    @property
    def transport(self) -> list[str]:
        """The command line of ssh, without the host."""
        return [*self._own, *self._shared.options]

    def ssh(self, command: str) -> list[str]:
        """Return the command line that runs a shell command there, in the home directory."""
        return [*self.transport, self.host, f"sh -c {shlex.quote(command)}"]

    def sh(self, command: str, text: str = "", seconds: float | None = None) -> str:
        """Run a shell command there; returns its standard output.

        Parameters
        ----------
        command : for /bin/sh; what comes from others must have gone through shlex.quote
        text : its standard input
        seconds : how long it may take; None for STEP_SECONDS

        Raises
        ------
        ConnectionLost
            There was no connection, it broke, or the time is over: nobody knows what was done.
        RemoteError
            The command failed; the text is the last line of its error output.
        """
        limit = STEP_SECONDS if seconds is None else seconds
        marker = Marker()
        told, errors = self.run_program(
            self.ssh(marker.before(command)), text, (SSH_LOST,), limit, marker
        )
        noise, answer = marker.split(told)
        if answer is None:
            raise RemoteError(f"{self.host}: a login file there ends before the command runs: "
                              f"{telling_line(errors) or noise.strip()[:80]!r}")  # fmt: skip
        self.noise = self.noise or noise.strip()
        return answer

    def stream(self, command: str) -> Generator[str, None, None]:
        """Run a shell command there; yields the lines of its standard output as they come.

        Closing the iterator ends it on this side. A command that never writes does not see that
        its reader has gone: `tail -f` does.

        Raises
        ------
        ConnectionLost, RemoteError
            As `sh`, after the last line.
        """
        marker = Marker()
        with self.started(marker.before(command), subprocess.DEVNULL) as (process, errors):
            assert process.stdout is not None
            yield from marker.skip(process.stdout)
            process.wait()
            complaint = marker.last(errors.text(ERRORS_SECONDS))
            self.raise_for(process.returncode, "ssh", complaint)

    @contextmanager
    def started(self, command: str, stdin: int) -> Iterator[tuple[subprocess.Popen[bytes], Reader]]:
        """Start a command there, which the block's end kills if it still runs.

        Raises
        ------
        RemoteError
            This program is being ended.
        """
        try:
            process = self._programs.start(
                self.ssh(command), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except ProgramsEnded as error:
            raise RemoteError(f"{self.host}: {error}") from error
        assert process.stderr is not None and process.stdout is not None
        try:
            yield process, Reader(process.stderr, _MOST_ERRORS)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def run_program(
        self, command: list[str], text: str, lost: tuple[int, ...], seconds: float | None,
        marker: Marker | None = None,
    ) -> tuple[str, str]:  # fmt: skip
        """Run a program here that talks to the host; return its output and its error output.

        Parameters
        ----------
        command, text : the program's command line and its standard input
        lost : its exit statuses where the connection was refused or lost
        seconds : how long it may take; None for ever
        marker : what separates an answer from text in front of it

        Raises
        ------
        ConnectionLost, RemoteError
            As `sh`.
        """
        try:
            done = run_bounded(command, text, seconds, _MOST_OUTPUT, self._programs)
        except subprocess.TimeoutExpired as error:
            raise ConnectionLost(f"no answer within {seconds:g} s") from error
        except (ProgramsEnded, TooMuchOutput) as error:
            raise RemoteError(f"{self.host}: {error}") from error
        errors = marker.last(done.stderr) if marker else done.stderr
        if marker and not errors.strip() and marker.split(done.stdout)[1] is None:
            errors = done.stdout  # of a login shell that runs no command, such as nologin
        program = "rsync" if "rsync" in command else "ssh"
        self.raise_for(done.returncode, program, errors, lost)
        return done.stdout, errors

    def raise_for(
        self, status: int, program: str, errors: str, lost: tuple[int, ...] = (SSH_LOST,)
    ) -> None:
        """Raise the error that a program's exit status and error output mean; none for status 0."""
        if status == 0:
            return
        if "No space left on device" in errors:
            raise RemoteError("the disk is full: No space left on device")
        if is_noise(errors):
            raise RemoteError(f"{self.host}: {NOISE}")
        refused = refusal(self.host, self._config, errors) if status in lost else ""
        if refused:
            raise AccessRefused(refused)
        kind = ConnectionLost if status in lost else RemoteError
        raise kind(telling_line(errors) or f"{program} ends with status {status}")
