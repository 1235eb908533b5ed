"""Atomic writing of a command's output files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tutelage.core.errors import FAILED, TutelageError


class WriteError(TutelageError):
    """A file cannot be written; the text names it."""

    status = FAILED


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file atomically; write directly to a pipe or a terminal.

    Raises
    ------
    WriteError
        The file cannot be written.
    """
    scratch = None
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        scratch.write_bytes(content)
        scratch.replace(path)
    except (OSError, ValueError) as error:
        if scratch is not None:
            with contextlib.suppress(OSError):
                scratch.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or error
        raise WriteError(f"{path}: cannot write: {reason}") from error
