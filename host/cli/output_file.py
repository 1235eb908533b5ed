"""Atomic writing of a command's output files."""

from __future__ import annotations

from pathlib import Path

from tutelage.core import files
from tutelage.core.errors import FAILED, TutelageError


class WriteError(TutelageError):
    """A file cannot be written; the text names it."""

    status = FAILED


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file as `tutelage.core.files.write_file` does.

    Raises
    ------
    WriteError
        The file cannot be written.
    """
    try:
        files.write_file(path, content)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WriteError(f"{path}: cannot write: {reason}") from error
