"""A lock on a directory of a remote host, given back where its holder vanishes."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from tutelage.host.ssh.answer_marker import Marker
from tutelage.host.ssh.bounded_process import ERRORS_SECONDS
from tutelage.host.ssh.errors import ConnectionLost
from tutelage.host.ssh.remote import STEP_SECONDS, Remote

# A lock is given back there when its holder was not heard of for so long.
_LEASE_SECONDS = 20.0


def lock_command(remote: Remote, place: str, make: bool = False) -> list[str]:
    """Return the command line that holds the lock of `lock`.

    It prints "held" when it has it, "waits" before that, and lives while it is written to.
    """
    return remote.ssh(_lock_script(place, make))


@contextmanager
def lock(
    remote: Remote, place: str, waits: Callable[[], None], make: bool = False
) -> Iterator[None]:
    """Lock a directory there while the block runs, after whoever has it locked now.

    It is flock's, held by a process there that ends with this one, or when the connection has
    been silent for _LEASE_SECONDS.

    Parameters
    ----------
    place : the directory
    waits : called once where another has the lock
    make : make the directory where it is missing

    Raises
    ------
    ConnectionLost, RemoteError
        As `Remote.sh`; also where the other has not ended after STEP_SECONDS.
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
                if line.strip() == "held":
                    break
                waits()
            else:
                process.wait()
                complaint = marker.last(errors.text(ERRORS_SECONDS))
                remote.raise_for(process.returncode, "ssh", complaint)
                raise ConnectionLost("the connection that holds the lock ended")
            yield
        finally:
            released.set()
            beat.join()
            _give_back(process)


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
    """Signal the other side that this one lives, until the lock is released."""
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
