"""Sensors' files below /sys that stay open.

A chip may go away while it is read, and come back under another number: `Attribute.reopen`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

# A sysfs attribute with a number; anything longer is none.
_ATTRIBUTE_BYTES = 64

Reader = Callable[[], float]  # the present value, NaN where it cannot be read


class Attribute:
    """A file with one number: a system call per reading, no directory is walked.

    Attributes
    ----------
    path : where it was opened
    """

    __slots__ = ("_descriptor", "_identity", "_scale", "_text", "path")

    def __init__(self, path: Path, scale: float):
        """`scale`: the unit of a count. Raises OSError where the file cannot be opened."""
        self._scale = scale
        self._descriptor = -1
        self._open(path)

    def _open(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.close()
        self._descriptor = descriptor
        self._identity = _identity(os.fstat(descriptor))
        self.path = path
        self._text = str(path)  # turning a path into it takes longer than asking for the file

    def __call__(self) -> float:
        try:
            return float(os.pread(self._descriptor, _ATTRIBUTE_BYTES, 0)) * self._scale
        except (OSError, ValueError):  # the chip is gone or busy, or what it says is not a number
            return math.nan

    @property
    def gone(self) -> bool:
        return self._descriptor < 0

    def look(self) -> None:
        """Close the file where its path has vanished or leads to another one meanwhile.

        A file that was removed can be read on, unless its file system knows better (sysfs does).
        """
        try:
            same = _identity(os.stat(self._text)) == self._identity  # noqa: PTH116
        except OSError:
            same = False
        if not same:
            self.close()

    def reopen(self, path: Path) -> None:
        """Open the file anew, maybe elsewhere; it stays as it is where that cannot be done."""
        try:
            self._open(path)
        except OSError:
            return

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1  # another file may get the number


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def entries(folder: Path) -> list[Path]:
    """Return what a directory of sysfs holds, by name; nothing where it does not exist."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def text(path: Path) -> str | None:
    """Return what a file says, without white space around it; None where that is nothing."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip() or None
    except OSError:
        return None
