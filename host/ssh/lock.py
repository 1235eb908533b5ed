"""Lock of a directory on a remote host, released if its holder disappears."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from tutelage.host.ssh.answer_marker import Marker
from tutelage.host.ssh.bounded_process import ERRORS_SECONDS
from tutelage.host.ssh.errors import ConnectionLost
from tutelage.host.ssh.remote import SSH_LOST, STEP_SECONDS, Remote

# The host releases a lock after this time without a heartbeat from its holder.
_LEASE_SECONDS = 20.0


def lock_command(remote: Remote, place: str, make: bool = False) -> list[str]:
    """Return the command line of the process that holds the lock of `lock`.

    It prints "waits" if another process has the lock, and "held" and its number once it has it. It
    runs as long as it receives input.
    """
    return remote.ssh(_lock_script(place, make))


@contextmanager
def lock(
    remote: Remote, place: str, waits: Callable[[], None], make: bool = False
) -> Iterator[None]:
    """Lock a directory on the host while the block runs, waiting until the lock is free.

    The lock is flock's. A process on the host holds it, which ends with this one, or when the
    connection has been silent for _LEASE_SECONDS, for example because this machine was suspended.
    The remote's commands check before they run that it still holds the lock.

    Parameters
    ----------
    place : the directory
    waits : called once if another process has the lock
    make : create the directory if it does not exist

    Raises
    ------
    ConnectionLost, RemoteError
        As for `Remote.sh`, or the lock is not free after STEP_SECONDS. In the block `Remote.sh`
        raises ConnectionLost if the lock was lost.
    """
    marker = Marker()
    command = marker.before(_lock_script(place, make))
    with remote.started(command, subprocess.PIPE) as (process, errors):
        assert process.stdin is not None and process.stdout is not None
        released = threading.Event()
        beat = threading.Thread(target=_beat, args=(process.stdin, released), daemon=True)
        beat.start()
        try:
            for line in marker.skip(process.stdout):
                if held := re.fullmatch(r"held (\d{1,10})", line.strip()):
                    break
                waits()
            else:
                process.wait()
                complaint = marker.last(errors.text(ERRORS_SECONDS))
                remote.raise_for(process.returncode, "ssh", complaint)
                raise ConnectionLost("the connection that holds the lock ended")
            remote.guard = _guard_script(place, held[1])
            yield
        finally:
            remote.guard = ""
            released.set()
            beat.join()
            _give_back(process)


def _lock_script(place: str, make: bool) -> str:
    folder = shlex.quote(place)
    return (
        (f"mkdir -p {folder} || exit 1; " if make else "")
        + f"cd {folder} 2>/dev/null && exec 9<. || "
        "{ echo nothing is deployed on the board >&2; exit 1; }; "
        "command -v flock > /dev/null || "
        "{ echo flock is not installed on the board >&2; exit 1; }; "
        f"flock -n 9 || {{ echo waits; flock -w {STEP_SECONDS:.0f} 9; }} || "
        "{ echo another deployment is still running >&2; exit 1; }; "
        f'echo "held $$"; while [ -n "$(timeout {_LEASE_SECONDS:g} head -c 1)" ]; do :; done'
    )


def _guard_script(place: str, number: str) -> str:
    """Return a script that ends, like a lost connection, if process `number` has lost the lock."""
    text = (
        f"the lock on {place} was lost: nothing was heard from this machine for "
        f"{_LEASE_SECONDS:g} s, as if it was suspended; another deployment may have changed the "
        "board since: run the command again"
    )
    return (
        f"test /proc/{number}/fd/9 -ef {shlex.quote(place)} || "
        f"{{ echo {shlex.quote(text)} >&2; exit {SSH_LOST}; }}; "
    )


def _beat(pipe: IO[bytes], released: threading.Event) -> None:
    """Send signs of life to the host until the lock is released."""
    while not released.wait(_LEASE_SECONDS / 4):
        try:
            os.write(pipe.fileno(), b".")
        except OSError:
            return


def _give_back(process: subprocess.Popen[bytes]) -> None:
    """End the process that holds a lock, and wait until it has released it, up to 5 s."""
    with suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)
