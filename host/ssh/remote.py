"""A machine that is reached by SSH: run a command there, follow one, copy both ways.

    with Remote("xilinx@board", None) as remote:        # one connection for all that follows
        remote.sh("uname -m")                           # standard output as text
        remote.push(Path("stage"), "tutelage/stage")    # rsync; paths start in the home directory
        remote.fetch("tutelage/runs/7", Path("results"), ["run.json"], 1 << 20)

ssh and rsync are the system's, with the user's own configuration (~/.ssh/config, agents, jump
hosts), except what would disturb a command: RemoteCommand, RequestTTY, LocalCommand and some more
are off.
Nothing is asked for on the terminal, and host keys are always checked. What the other side sends is
not trusted: output is bounded, and no copy follows or makes links, in either direction. Text that a
login file there prints in front of an answer is cut off and kept in `noise`; rsync fails of it.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tutelage.core.errors import FAILED, TutelageError
from tutelage.core.text import shown
from tutelage.host.ssh.advice import NOISE, is_noise, refusal
from tutelage.host.ssh.answer_marker import Marker
from tutelage.host.ssh.bounded_process import (
    ERRORS_SECONDS,
    Interrupted,
    Programs,
    Reader,
    TooMuchOutput,
    limited_files,
    run_bounded,
)
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

# ssh's status where the connection was refused or lost; 12, 30 and 35 are rsync's own for one that
# broke, hung or could not be made.
_SSH_LOST = 255
_RSYNC_LOST = (_SSH_LOST, 12, 30, 35)
# rsync gives up where nothing moves for so long; its whole run has no limit.
_RSYNC_SECONDS = 60
_PARTIAL = ".rsync-partial"
# A lock is given back there when its holder was not heard of for so long.
_LEASE_SECONDS = 20.0
_MOST_OUTPUT, _MOST_ERRORS = 16 << 20, 1 << 16  # of a command, in bytes


class RemoteError(TutelageError):
    """Something failed on a host, or on the way to it; the text is one line."""

    status = FAILED


class ConnectionLost(RemoteError):
    """The host is not reached, is not the one that is known, or went away."""


class AccessRefused(ConnectionLost):
    """The host's key or the user is not accepted; trying again does not help."""


class RemoteUsageError(TutelageError):
    """A host's name is none, or ssh or rsync is missing here; the text is one line."""


def check_hosts(hosts: Sequence[str]) -> None:
    """See that the hosts can be given to ssh, and that it is there.

    Raises
    ------
    RemoteUsageError
        A name is none or stands twice, or ssh or rsync is not installed.
    """
    for host in hosts:
        if not re.fullmatch(r"[\w][\w.@-]*", host) and not _is_ipv6(host):
            raise RemoteUsageError(f"{host!r}: not user@host or a name of ~/.ssh/config")
    if len(set(hosts)) != len(hosts):
        raise RemoteUsageError("a host is named twice")
    for tool in ("ssh", "rsync"):
        if shutil.which(tool) is None:
            raise RemoteUsageError(f"{tool} is not installed on this machine")


def _is_ipv6(host: str) -> bool:
    """Whether a host is an IPv6 address, as in xilinx@fe80::1%eth0."""
    found = re.fullmatch(r"(?:\w[\w.-]*@)?([0-9A-Fa-f:.]+)(?:%\w[\w.-]*)?", host)
    try:
        return found is not None and ipaddress.ip_address(found[1]).version == 6
    except ValueError:
        return False


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
                self._raise_for(done.returncode, "ssh", done.stderr, (_SSH_LOST,))
        except BaseException as error:
            self._shared.close()
            if isinstance(error, subprocess.TimeoutExpired):
                raise ConnectionLost(f"no answer within {error.timeout:g} s") from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._shared.close()

    @property
    def _ssh(self) -> list[str]:
        return [*self._own, *self._shared.options]

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
        marker = Marker()
        told, errors = self._run(
            self.ssh(marker.before(command)), text, (_SSH_LOST,), limit, marker
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
        with self._started(marker.before(command), subprocess.DEVNULL) as (process, errors):
            assert process.stdout is not None
            yield from marker.skip(process.stdout)
            process.wait()
            self._raise_for(
                process.returncode, "ssh", marker.last(errors.text(ERRORS_SECONDS)), (_SSH_LOST,)
            )

    @contextmanager
    def _started(
        self, command: str, stdin: int
    ) -> Iterator[tuple[subprocess.Popen[bytes], Reader]]:
        """Start a command there, which the block's end kills if it still runs."""
        try:
            process = self._programs.start(
                self.ssh(command), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except Interrupted as error:
            raise RemoteError(f"{self.host}: {error}") from error
        assert process.stderr is not None and process.stdout is not None
        try:
            yield process, Reader(process.stderr, _MOST_ERRORS)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def lock_command(self, place: str, make: bool = False) -> list[str]:
        """The command line that holds the lock of `lock`.

        It prints "held" when it has it, "waits" before that, and lives while it is written to.
        """
        return self.ssh(_lock_script(place, make))

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
        marker = Marker()
        command = marker.before(_lock_script(place, make))
        with self._started(command, subprocess.PIPE) as (process, errors):
            assert process.stdin is not None and process.stdout is not None
            released = threading.Event()
            beat = threading.Thread(target=_beat, args=(process.stdin, released), daemon=True)
            beat.start()
            try:
                for line in marker.skip(process.stdout):
                    if line.strip() == "held":
                        break
                    waits()
                else:
                    process.wait()
                    complaint = marker.last(errors.text(ERRORS_SECONDS))
                    self._raise_for(process.returncode, "ssh", complaint, (_SSH_LOST,))
                    raise ConnectionLost("the connection that holds the lock ended")
                yield
            finally:
                released.set()
                beat.join()
                _give_back(process)

    def rsync(self, *options: str) -> list[str]:
        """The beginning of an rsync command line; options, source and target follow.

        It copies regular files and directories: without --links, links are left out.
        """
        return [
            "rsync", "-rt", "-s", f"--timeout={_RSYNC_SECONDS}", "--stats",
            "-e", shlex.join(self._ssh), *options,
        ]  # fmt: skip

    def push_command(self, folder: Path, place: str, *options: str) -> list[str]:
        """The command line of `push`."""
        return [*self.rsync("-p", "--partial", *options), f"{folder}/", self._place(place)]

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
        told = self._rsync(self.push_command(folder, place, *options))
        return _figure("Total bytes sent", told)

    def fetch(self, place: str, folder: Path, names: Sequence[str], most: int) -> int:
        """Copy files of a directory there into one here; returns the bytes that were received.

        Parameters
        ----------
        place : the directory there
        folder : the directory here, made where it is missing; it belongs to this copy alone, and
            what does not belong in it is removed
        names : the files that are wanted; others, and directories, are left there
        most : the largest file that is taken, bytes

        Raises
        ------
        ConnectionLost, RemoteError
            As `sh`; also where one of the names is a link or a device there, or where anything else
            than these files arrived: then `folder` is removed. A file has its name only when it is
            complete; the next fetch goes on with one that is not.
        """
        if not _has_only_files(folder, (*names, _PARTIAL)):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        options = [f"--partial-dir={_PARTIAL}", f"--max-size={most}"]
        options += [*(f"--include=/{name}" for name in names), "--exclude=*"]
        command = [*self.rsync(*options), self._place(place), f"{folder}/"]
        told = self._rsync(limited_files(command, most))
        if not _has_only_files(folder, names):
            shutil.rmtree(folder)
            raise RemoteError(f"{self.host}: sent what was not asked for; all of it was removed")
        skipped = re.search(r'^skipping non-regular file "(.*)"$', told, re.MULTILINE)
        if skipped:
            raise RemoteError(f"{self.host}: {place}/{skipped[1]} is not a regular file; links and "
                              "devices are not followed")  # fmt: skip
        return _figure("Total bytes received", told)

    def _place(self, place: str) -> str:
        """A directory there as rsync takes it, which wants brackets around an IPv6 address."""
        user, at, name = self.host.rpartition("@")
        return f"{user}{at}[{name}]:{place}/" if ":" in name else f"{self.host}:{place}/"

    def _rsync(self, command: list[str]) -> str:
        return self._run(command, "", _RSYNC_LOST, None)[0]

    def _run(
        self, command: list[str], text: str, lost: tuple[int, ...], seconds: float | None,
        marker: Marker | None = None,
    ) -> tuple[str, str]:  # fmt: skip
        """Run a program here that talks to the host; returns its output and its error output."""
        try:
            done = run_bounded(command, text, seconds, _MOST_OUTPUT, self._programs)
        except subprocess.TimeoutExpired as error:
            raise ConnectionLost(f"no answer within {seconds:g} s") from error
        except (Interrupted, TooMuchOutput) as error:
            raise RemoteError(f"{self.host}: {error}") from error
        errors = marker.last(done.stderr) if marker else done.stderr
        if marker and not errors.strip() and marker.split(done.stdout)[1] is None:
            errors = done.stdout  # of a login shell that runs no command, such as nologin
        program = "rsync" if "rsync" in command else "ssh"
        self._raise_for(done.returncode, program, errors, lost)
        return done.stdout, errors

    def _raise_for(self, status: int, program: str, errors: str, lost: tuple[int, ...]) -> None:
        """Raise what a program's exit status and error output stand for; nothing for status 0."""
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


def _lock_script(place: str, make: bool) -> str:
    folder = shlex.quote(place)
    return (
        (f"mkdir -p {folder} || exit 1; " if make else "")
        + f"cd {folder} 2>/dev/null && exec 9<. || "
        "{ echo nothing was deployed there >&2; exit 1; }; "
        "command -v flock > /dev/null || { echo flock is not installed there >&2; exit 1; }; "
        f"flock -n 9 || {{ echo waits; flock -w {STEP_SECONDS:.0f} 9; }} || "
        "{ echo somebody else still deploys there >&2; exit 1; }; "
        f'echo held; while [ -n "$(timeout {_LEASE_SECONDS:g} head -c 1)" ]; do :; done'
    )


def _beat(pipe: IO[bytes], released: threading.Event) -> None:
    """Let the other side know that this one lives, until the lock is released."""
    while not released.wait(_LEASE_SECONDS / 4):
        try:
            os.write(pipe.fileno(), b".")
        except OSError:
            return


def _give_back(process: subprocess.Popen[bytes]) -> None:
    """End a process that holds a lock; it is given back when this returns, if there is a way."""
    with suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)


def _has_only_files(folder: Path, names: Sequence[str]) -> bool:
    """Whether a directory has nothing but regular files of these names, and rsync's own directory.

    That is true of one that does not exist.
    """
    if not folder.exists():
        return not folder.is_symlink()
    with os.scandir(folder) as entries:
        return all(
            entry.name in names
            and (entry.is_dir if entry.name == _PARTIAL else entry.is_file)(follow_symlinks=False)
            for entry in entries
        )


def telling_line(errors: str) -> str:
    """The line of an error output that tells most: the last that is not rsync's summary.

    It comes from a host that may be anybody's: see `tutelage.core.text.shown`.
    """
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("rsync error:", "rsync: connection"))]
    return shown((telling or lines or [""])[-1])


def _figure(name: str, told: str) -> int:
    """A number of rsync's --stats."""
    found = re.search(rf"{name}: ([\d,.]+)", told)
    return int(re.sub(r"\D", "", found[1])) if found else 0
