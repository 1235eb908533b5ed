"""Files of sensors below /sys that are kept open.

A chip may disappear while it is read, and come back under another number: see `Attribute.reopen`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

# Longest text of a sysfs attribute with a number.
_ATTRIBUTE_BYTES = 64

Reader = Callable[[], float]  # returns the current value; NaN if it cannot be read


class Attribute:
    """A file with one number, which takes a single system call to read.

    Parameters
    ----------
    path : the file
    scale : unit of the number

    Attributes
    ----------
    path : path at which the file was opened

    Raises
    ------
    OSError
        The file cannot be opened.
    """

    __slots__ = ("_descriptor", "_identity", "_scale", "_text", "path")

    def __init__(self, path: Path, scale: float):
        self._scale = scale
        self._descriptor = -1
        self._open(path)

    def _open(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.close()
        self._descriptor = descriptor
        self._identity = _identity(os.fstat(descriptor))
        self.path = path
        self._text = str(path)  # cached, since converting a path takes longer than stat

    def __call__(self) -> float:
        try:
            return float(os.pread(self._descriptor, _ATTRIBUTE_BYTES, 0)) * self._scale
        except (OSError, ValueError):  # the chip is gone or busy, or the text is not a number
            return math.nan

    @property
    def gone(self) -> bool:
        """Whether the file is closed."""
        return self._descriptor < 0

    def look(self) -> None:
        """Close the file if its path no longer exists or leads to another file.

        Most file systems (but not sysfs) allow a removed file to be read on.
        """
        try:
            same = _identity(os.stat(self._text)) == self._identity  # noqa: PTH116
        except OSError:
            same = False
        if not same:
            self.close()

    def reopen(self, path: Path) -> None:
        """Reopen the file at a path; on failure it is unchanged."""
        try:
            self._open(path)
        except OSError:
            return

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1  # the number may be reused for another file


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def entries(folder: Path) -> list[Path]:
    """Return the paths in a directory of sysfs, sorted; none if it does not exist."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def text(path: Path) -> str | None:
    """Return the stripped text of a file; None if it is empty or unreadable."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip() or None
    except OSError:
        return None
