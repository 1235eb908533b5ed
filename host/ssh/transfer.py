"""Transfer of files to and from a remote host by rsync.

    push(remote, Path("stage"), "tutelage/stage")       # relative to the remote home directory
    fetch(remote, "tutelage/runs/7", Path("results"), ["run.json"], 1 << 20)

Links are neither followed nor created, in either direction.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from tutelage.host.ssh.bounded_process import limited_files
from tutelage.host.ssh.errors import RemoteError
from tutelage.host.ssh.remote import SSH_LOST, Remote

# rsync's exit statuses for a connection that broke, hung or could not be made.
_RSYNC_LOST = (SSH_LOST, 12, 30, 35)
# rsync ends if no data is transferred for this time, s; its whole run has no limit.
_RSYNC_SECONDS = 60
_PARTIAL = ".rsync-partial"


def rsync(remote: Remote, *options: str) -> list[str]:
    """Return the beginning of an rsync command line; options, source and target follow.

    It copies regular files and directories; links are left out, since --links is not given.
    """
    return [
        "rsync", "-rt", "-s", f"--timeout={_RSYNC_SECONDS}", "--stats",
        "-e", shlex.join(remote.transport), *options,
    ]  # fmt: skip


def push_command(remote: Remote, folder: Path, place: str, *options: str) -> list[str]:
    """Return the command line of `push`."""
    return [*rsync(remote, "-p", "--partial", *options), f"{folder}/", _place(remote, place)]


def push(remote: Remote, folder: Path, place: str, *options: str) -> int:
    """Copy the content of a directory to the host; return the number of bytes sent.

    Parameters
    ----------
    folder : directory on this machine
    place : directory on the host, created if it does not exist (but not its parents)
    options : further options of rsync, such as --delete

    Raises
    ------
    ConnectionLost, RemoteError
        As for `Remote.sh`. Incomplete files remain on the host under their names, so that the next
        push continues with them.
    """
    printed = _run(remote, push_command(remote, folder, place, *options))
    return _figure("Total bytes sent", printed)


def fetch(remote: Remote, place: str, folder: Path, names: Sequence[str], most: int) -> int:
    """Copy files from a directory on the host; return the number of bytes received.

    Parameters
    ----------
    place : directory on the host
    folder : directory on this machine, created if it does not exist, for this copy only: a
        directory that has anything else is removed first
    names : names of the files to copy; others, and directories, are not copied
    most : largest size of a file, bytes

    Raises
    ------
    ConnectionLost, RemoteError
        As for `Remote.sh`. Also if one of the names is a link or a device on the host, or if
        anything other than these files arrived, in which case `folder` is removed. A file gets its
        name when it is complete; the next fetch continues with incomplete ones.
    """
    if not _has_only_files(folder, (*names, _PARTIAL)):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    options = [f"--partial-dir={_PARTIAL}", f"--max-size={most}"]
    options += [*(f"--include=/{name}" for name in names), "--exclude=*"]
    command = [*rsync(remote, *options), _place(remote, place), f"{folder}/"]
    printed = _run(remote, limited_files(command, most))
    if not _has_only_files(folder, names):
        shutil.rmtree(folder)
        raise RemoteError(f"{remote.host}: sent files that were not requested; all were removed")
    skipped = re.search(r'^skipping non-regular file "(.*)"$', printed, re.MULTILINE)
    if skipped:
        raise RemoteError(f"{remote.host}: {place}/{skipped[1]} is not a regular file; links and "
                          "devices are not followed")  # fmt: skip
    return _figure("Total bytes received", printed)


def _place(remote: Remote, place: str) -> str:
    """Return rsync's notation of a directory on the host, with brackets around an IPv6 address."""
    user, at, name = remote.host.rpartition("@")
    return f"{user}{at}[{name}]:{place}/" if ":" in name else f"{remote.host}:{place}/"


def _run(remote: Remote, command: list[str]) -> str:
    return remote.run_program(command, "", _RSYNC_LOST, None)[0]


def _has_only_files(folder: Path, names: Sequence[str]) -> bool:
    """Return whether a directory has only regular files of these names, and rsync's directory.

    It is True for a directory that does not exist.
    """
    if not folder.exists():
        return not folder.is_symlink()
    with os.scandir(folder) as entries:
        return all(
            entry.name in names
            and (entry.is_dir if entry.name == _PARTIAL else entry.is_file)(follow_symlinks=False)
            for entry in entries
        )


def _figure(name: str, printed: str) -> int:
    """Return a number of rsync's --stats."""
    found = re.search(rf"{name}: ([\d,.]+)", printed)
    return int(re.sub(r"\D", "", found[1])) if found else 0
