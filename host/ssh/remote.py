"""Commands on a remote machine by SSH.

    with Remote("xilinx@board", None) as remote:        # one connection for all commands
        remote.sh("uname -m")                           # standard output as text
        push(remote, Path("stage"), "tutelage/stage")   # see `tutelage.host.ssh.transfer`

ssh and rsync are those of the system, with the user's configuration (~/.ssh/config, agents, jump
hosts), except for settings that interfere with a command: RemoteCommand, RequestTTY, LocalCommand
and some others are off. Nothing is asked for on the terminal, and host keys are always checked. The
host is untrusted: its output is bounded. Text that a login file prints before an answer is removed
and kept in `noise`; it makes rsync fail.
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
"""Options of ssh to detect within seconds that a host does not answer, and to turn off settings of
the user that interfere with a command and its output."""

# The same, keyword -> default, but OpenSSH before 8.7 fails if given one of them.
_NEWER_OPTIONS = {"forkafterauthentication": "no", "stdinnull": "no"}

STEP_SECONDS = 600.0
"""Default time limit of a command in `Remote.sh`, s."""

SSH_LOST = 255
"""Exit status of ssh if the connection was refused or lost."""

_MOST_OUTPUT, _MOST_ERRORS = 16 << 20, 1 << 16  # of a command, bytes


class Remote:
    """A remote host.

    Parameters
    ----------
    host : user@host, or a name in ssh's configuration
    config : configuration file for ssh -F; None for the user's
    programs : group of programs to add ssh and rsync to, which another thread may end

    Attributes
    ----------
    noise : text that was printed before an answer; "" for none
    guard : shell script that `sh` runs before each command, and that can end it; "" for none
    """

    def __init__(self, host: str, config: Path | None, programs: Programs | None = None) -> None:
        self.host = host
        self._programs = programs or Programs()
        self.noise = self.guard = ""
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
        """Connect; all commands in the block share the connection, if possible.

        If the user's configuration has a ControlPath, it is not changed: such a user shares
        connections already, or does not want to.

        Raises
        ------
        ConnectionLost
            The host cannot be reached, or refuses the connection.
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
        """Command line of ssh, without the host."""
        return [*self._own, *self._shared.options]

    def ssh(self, command: str) -> list[str]:
        """Return the command line that runs a shell command on the host, in the home directory."""
        return [*self.transport, self.host, f"sh -c {shlex.quote(command)}"]

    def sh(self, command: str, text: str = "", seconds: float | None = None) -> str:
        """Run a shell command on the host; return its standard output.

        Parameters
        ----------
        command : for /bin/sh; untrusted words in it must be quoted by shlex.quote
        text : its standard input
        seconds : time limit, s; None for STEP_SECONDS

        Raises
        ------
        ConnectionLost
            There was no connection, it broke, or the command exceeded the time limit; it is not
            known whether the command ran.
        RemoteError
            The command failed; the text is the last line of its error output.
        """
        limit = STEP_SECONDS if seconds is None else seconds
        marker = Marker()
        printed, errors = self.run_program(
            self.ssh(marker.before(self.guard + command)), text, (SSH_LOST,), limit, marker
        )
        noise, answer = marker.split(printed)
        if answer is None:
            raise RemoteError(f"{self.host}: a login file exits before the command runs: "
                              f"{telling_line(errors) or noise.strip()[:80]!r}")  # fmt: skip
        self.noise = self.noise or noise.strip()
        return answer

    def stream(self, command: str) -> Generator[str, None, None]:
        """Run a shell command on the host; yield the lines of its standard output as they arrive.

        Closing the iterator ends ssh on this machine. A command that never writes does not notice
        that its reader has gone; `tail -f` does.

        Raises
        ------
        ConnectionLost, RemoteError
            As for `sh`, after the last line.
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
        """Start a command on the host; its ssh is killed at the end of the block.

        Raises
        ------
        RemoteError
            The programs of this host have been ended.
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
        """Run a program on this machine that connects to the host; return output and error output.

        Parameters
        ----------
        command, text : the program's command line and its standard input
        lost : its exit statuses for a connection that was refused or lost
        seconds : time limit, s; None for none
        marker : marker that separates an answer from text before it

        Raises
        ------
        ConnectionLost, RemoteError
            As for `sh`.
        """
        try:
            done = run_bounded(command, text, seconds, _MOST_OUTPUT, self._programs)
        except subprocess.TimeoutExpired as error:
            raise ConnectionLost(f"no answer within {seconds:g} s") from error
        except (ProgramsEnded, TooMuchOutput) as error:
            raise RemoteError(f"{self.host}: {error}") from error
        errors = marker.last(done.stderr) if marker else done.stderr
        if marker and not errors.strip() and marker.split(done.stdout)[1] is None:
            errors = done.stdout  # of a login shell that does not run commands, such as nologin
        program = "rsync" if "rsync" in command else "ssh"
        self.raise_for(done.returncode, program, errors, lost)
        return done.stdout, errors

    def raise_for(
        self, status: int, program: str, errors: str, lost: tuple[int, ...] = (SSH_LOST,)
    ) -> None:
        """Raise the error for a program's exit status and error output; none for status 0.

        Raises
        ------
        ConnectionLost, AccessRefused
            The status is one of `lost`.
        RemoteError
            The program failed otherwise.
        """
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
        raise kind(telling_line(errors) or f"{program} ended with status {status}")
