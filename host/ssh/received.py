"""Files that came from a board: read without following links, up to a bound."""

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
    """A received file is not what it must be; one line that names it."""

    status = FAILED


@contextmanager
def open_received(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file for reading.

    Raises
    ------
    ReceivedError
        It is a link, a device or a directory.
    OSError
        It cannot be opened.
    """
    if path.is_symlink():
        raise ReceivedError(f"{path}: a link, which is not followed")
    # Without waiting for a writer, where it is a pipe.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ReceivedError(f"{path}: not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def read_received(path: Path, most: int) -> str:
    """Return the text of a received file, in UTF-8.

    Raises
    ------
    ReceivedError
        As `open_received`; it has more than `most` bytes, or is not text.
    OSError
        It cannot be read.
    """
    with open_received(path) as file:
        data = read_open_bounded(file, most)
    if len(data) > most:
        raise ReceivedError(f"{path}: more than {most:,} bytes, refused")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ReceivedError(f"{path}: not a text in UTF-8") from None


def sha256_of_received(path: Path) -> str:
    """Return a received file's SHA-256, in hexadecimal; raises as `open_received`."""
    with open_received(path) as file:
        return sha256_of_open(file)
