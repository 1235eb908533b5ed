"""Reading of files from a board, without following links and with limited size."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tutelage.core.errors import FAILED, TutelageError
from tutelage.core.files import read_open_bounded, sha256_of_open


class ReceivedError(TutelageError):
    """A received file cannot be used; the text is one line that names it."""

    status = FAILED


@contextmanager
def open_received(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file for reading.

    Raises
    ------
    ReceivedError
        The file is a link, a device or a directory.
    OSError
        The file cannot be opened.
    """
    if path.is_symlink():
        raise ReceivedError(f"{path}: a link, which is not followed")
    # O_NONBLOCK: opening a pipe must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ReceivedError(f"{path}: not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def read_received(path: Path, most: int) -> str:
    """Return the text of a received file in UTF-8.

    Parameters
    ----------
    most : largest allowed size, bytes

    Raises
    ------
    ReceivedError
        As for `open_received`, or the file has more than `most` bytes or is not UTF-8.
    OSError
        The file cannot be read.
    """
    with open_received(path) as file:
        data = read_open_bounded(file, most)
    if len(data) > most:
        raise ReceivedError(f"{path}: more than the limit of {most:,} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ReceivedError(f"{path}: not UTF-8 text") from None


def sha256_of_received(path: Path) -> str:
    """Return a received file's SHA-256 in hexadecimal; raise the errors of `open_received`."""
    with open_received(path) as file:
        return sha256_of_open(file)
