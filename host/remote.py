"""A machine that is reached by SSH: run a command there, follow one, copy both ways.

    remote = Remote("xilinx@board", None)
    remote.sh("uname -m")                              # standard output as text
    remote.push(Path("stage"), "tutelage/stage")       # rsync; paths start in the home directory
    remote.fetch("tutelage/runs/7", Path("results"))   # goes on where a broken fetch stopped

ssh and rsync are the system's, with the user's own configuration (~/.ssh/config, agents, jump
hosts). Nothing is asked for on the terminal, and host keys are always checked.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from dpu.text import shown

SSH_OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=2",
)
"""Options of ssh that notice within seconds when a host does not answer, or no longer."""

STEP_SECONDS = 600.0
"""How long `Remote.sh` waits for a command that its caller gives no time."""

# ssh's status where the connection was refused or lost; 12, 30 and 35 are rsync's own for one that
# broke, hung or could not be made.
_SSH_LOST = 255
_RSYNC_LOST = (_SSH_LOST, 12, 30, 35)
# rsync gives up where nothing moves for so long; its whole run has no limit.
_RSYNC_SECONDS = 60
_PARTIAL = ".rsync-partial"
# A lock is given back there when its holder was not heard of for so long.
_LEASE_SECONDS = 20.0


class RemoteError(RuntimeError):
    """Something failed on a host, or on the way to it; the text is one line."""


class ConnectionLost(RemoteError):
    """The host is not reached, is not the one that is known, or went away."""


class RemoteUsageError(ValueError):
    """A host's name is none, or ssh or rsync is missing here; the text is one line."""


def check_hosts(hosts: Sequence[str]) -> None:
    """See that the hosts can be given to ssh, and that it is there.

    Raises
    ------
    RemoteUsageError
        A name is none or stands twice, or ssh or rsync is not installed.
    """
    for host in hosts:
        if not re.fullmatch(r"[\w][\w.@-]*", host):
            raise RemoteUsageError(f"{host!r}: not user@host or a name of ~/.ssh/config")
    if len(set(hosts)) != len(hosts):
        raise RemoteUsageError("a host is named twice")
    for tool in ("ssh", "rsync"):
        if shutil.which(tool) is None:
            raise RemoteUsageError(f"{tool} is not installed on this machine")


class Remote:
    """One host.

    Parameters
    ----------
    host : user@host, or a name of the configuration
    config : file for ssh -F; None for the user's own
    """

    def __init__(self, host: str, config: Path | None) -> None:
        self.host = host
        self._ssh = ["ssh", *(("-F", str(config)) if config else ())]
        for option in SSH_OPTIONS:
            self._ssh += ["-o", option]

    def ssh(self, command: str) -> list[str]:
        """The command line that runs a shell command there, in the home directory."""
        return [*self._ssh, self.host, f"sh -c {shlex.quote(command)}"]

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
        return _run(self.ssh(command), text, (_SSH_LOST,), limit)

    def stream(self, command: str) -> subprocess.Popen[str]:
        """Start a shell command there whose standard output is read line by line as it comes.

        `for line in process.stdout` follows it; the caller ends it (`process.kill()`, from any
        thread) and asks `ended` why it ended by itself. What it writes to its error output must
        stay small. A command that never writes does not see that its reader has gone: `tail -f`
        does.
        """
        return subprocess.Popen(
            self.ssh(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace", bufsize=1,
        )  # fmt: skip

    @staticmethod
    def ended(process: subprocess.Popen[str]) -> None:
        """Wait for a command of `stream` to end and tell how it did.

        Raises
        ------
        ConnectionLost, RemoteError
            As `sh`.
        """
        _, errors = process.communicate()
        _raise_for(process.returncode, "ssh", errors or "", (_SSH_LOST,))

    def lock_command(self, place: str, make: bool = False) -> list[str]:
        """The command line that holds the lock of `lock`.

        It tells "held" when it has it, "waits" before that, and lives while it is written to.
        """
        folder = shlex.quote(place)
        return self.ssh(
            (f"mkdir -p {folder} || exit 1; " if make else "")
            + f"cd {folder} 2>/dev/null && exec 9<. || "
            "{ echo nothing was deployed there >&2; exit 1; }; "
            "command -v flock > /dev/null || { echo flock is not installed there >&2; exit 1; }; "
            f"flock -n 9 || {{ echo waits; flock -w {STEP_SECONDS:.0f} 9; }} || "
            "{ echo somebody else still deploys there >&2; exit 1; }; "
            f'echo held; while [ -n "$(timeout {_LEASE_SECONDS:g} head -c 1)" ]; do :; done'
        )

    @contextmanager
    def lock(self, place: str, waits: Callable[[], None], make: bool = False) -> Iterator[None]:
        """Hold the lock of a directory there while the block runs; another's is waited for.

        It is flock's, held by a process there that ends with this one, or when the connection has
        been silent for _LEASE_SECONDS.

        Parameters
        ----------
        place : the directory
        waits : called once where somebody else has the lock
        make : make the directory where it is missing

        Raises
        ------
        ConnectionLost, RemoteError
            As `sh`; also where the other has not ended after STEP_SECONDS.
        """
        process = subprocess.Popen(
            self.lock_command(place, make), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        released = threading.Event()
        beat = threading.Thread(target=_beat, args=(process.stdin, released), daemon=True)
        beat.start()
        try:
            for line in process.stdout:
                if line.strip() == "held":
                    break
                waits()
            else:
                released.set()
                beat.join()  # its pipe is closed now
                self.ended(process)
                raise ConnectionLost("the connection that holds the lock ended")
            yield
        finally:
            released.set()
            beat.join()
            _give_back(process)

    def rsync(self, *options: str) -> list[str]:
        """The beginning of an rsync command line; options, source and target follow."""
        return [
            "rsync", "-rltp", "-s", f"--timeout={_RSYNC_SECONDS}", "--stats",
            "-e", shlex.join(self._ssh), *options,
        ]  # fmt: skip

    def push_command(self, folder: Path, place: str, *options: str) -> list[str]:
        """The command line of `push`."""
        return [*self.rsync("--partial", *options), f"{folder}/", f"{self.host}:{place}/"]

    def push(self, folder: Path, place: str, *options: str) -> int:
        """Copy what a directory holds into one there; returns the bytes that were sent.

        Parameters
        ----------
        folder, place : the directory here, and there (made where it is missing, not its parents)
        options : further options of rsync, such as --delete

        Raises
        ------
        ConnectionLost, RemoteError
            As `sh`. Files that were not complete stay there under their own names, so that the
            next push goes on with them.
        """
        told = _run(self.push_command(folder, place, *options), "", _RSYNC_LOST, None)
        return _figure("Total bytes sent", told)

    def fetch(self, place: str, folder: Path, *options: str) -> int:
        """Copy what a directory there holds into one here; returns the bytes that were received.

        Parameters
        ----------
        place, folder : the directory there, and here (made where it is missing)
        options : further options of rsync, such as --include and --exclude

        Raises
        ------
        ConnectionLost, RemoteError
            As `sh`. A file has its name only when it is complete; the next fetch goes on with one
            that is not.
        """
        folder.mkdir(parents=True, exist_ok=True)
        command = self.rsync(f"--partial-dir={_PARTIAL}", *options)
        told = _run([*command, f"{self.host}:{place}/", f"{folder}/"], "", _RSYNC_LOST, None)
        return _figure("Total bytes received", told)


def _beat(pipe: IO[str], released: threading.Event) -> None:
    """Let the other side know that this one lives, until the lock is released."""
    while not released.wait(_LEASE_SECONDS / 4):
        try:
            os.write(pipe.fileno(), b".")
        except OSError:
            return


def _give_back(process: subprocess.Popen[str]) -> None:
    """End a process that holds a lock; it is given back when this returns, if there is a way."""
    with suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _run(command: list[str], text: str, lost: tuple[int, ...], seconds: float | None) -> str:
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, errors="replace", timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise ConnectionLost(f"no answer within {seconds:g} s") from error
    _raise_for(done.returncode, command[0], done.stderr, lost)
    return done.stdout


def _raise_for(status: int, program: str, errors: str, lost: tuple[int, ...]) -> None:
    """Raise what a program's exit status and error output stand for; nothing for status 0."""
    if status == 0:
        return
    if "No space left on device" in errors:
        raise RemoteError("the disk is full: No space left on device")
    kind = ConnectionLost if status in lost else RemoteError
    raise kind(telling_line(errors) or f"{program} ends with status {status}")


def telling_line(errors: str) -> str:
    """The line of an error output that tells most: the last that is not rsync's summary.

    It comes from a host that may be anybody's: see `dpu.text.shown`.
    """
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("rsync error:", "rsync: connection"))]
    return shown((telling or lines or [""])[-1])


def _figure(name: str, told: str) -> int:
    """A number of rsync's --stats."""
    found = re.search(rf"{name}: ([\d,.]+)", told)
    return int(re.sub(r"\D", "", found[1])) if found else 0
