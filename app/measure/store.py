"""The files of a measurement. They are whole at any time, whatever ends the process.

run.json        all figures; written anew, in one step, after every measured window
summary.md      the same as a table
frames.csv      every frame of every window
power.csv       every reading of the rails, idle phases included
condition.csv   temperature, clocks and other work, once per second
progress.jsonl  one line for each phase, for whoever watches
SHA256SUMS      of all files above; there when the run has ended
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

RUN, SUMMARY, PROGRESS, SUMS = "run.json", "summary.md", "progress.jsonl", "SHA256SUMS"
_LOCK = ".lock"
# Room that is given up at the end, so that the end can be told where the disk is full.
_RESERVE, _RESERVE_BYTES = ".reserve", 1 << 20


class StoreError(Exception):
    """A measurement cannot be stored there; the text is one line for the user."""


class Store:
    """A new directory for one measurement, held against others until `close`.

    Parameters
    ----------
    folder : does not exist, or is empty but for a log; its parent holds the lock: one measurement
        at a time

    Raises
    ------
    StoreError
        It holds a measurement, another one is running, or nothing can be written there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._origin = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder.parent / _LOCK, folder.name)
            if (folder / PROGRESS).exists():
                self._lock.close()
                raise StoreError(f"{folder}: holds a measurement already; take another directory")
            self._progress = (folder / PROGRESS).open("w", encoding="utf-8")
            (folder / _RESERVE).write_bytes(bytes(_RESERVE_BYTES))
        except OSError as error:
            raise StoreError(f"{folder}: {error.strerror or error}") from error

    @property
    def origin(self) -> float:
        """Monotonic time (s) from which times in all files count."""
        return self._origin

    def event(self, kind: str, /, **details: Any) -> None:
        """Add a line to the progress, at once on the disk."""
        at = round(time.monotonic() - self._origin, 3)
        self._progress.write(json.dumps({"at": at, "event": kind, **details}) + "\n")
        _flush(self._progress)

    def write_text(self, name: str, text: str) -> None:
        """Put a file in place in one step: whoever reads it sees the old one or the new one."""
        partial = self.folder / f".{name}.partial"
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            _flush(file)
        partial.replace(self.folder / name)
        _flush_folder(self.folder)

    def append(self, name: str, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
        """Add rows to a CSV file, numbers with what matters of their digits, None and NaN empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        path = self.folder / name
        if not path.exists():
            writer.writerow(columns)
        writer.writerows([_cell(value) for value in row] for row in rows)
        with path.open("a", encoding="utf-8") as file:
            size = file.tell()
            try:
                file.write(text.getvalue())
                _flush(file)
            except OSError:
                os.ftruncate(file.fileno(), size)  # no torn line stays where the disk is full
                raise

    def free_reserve(self) -> None:
        """Make room for the last words."""
        (self.folder / _RESERVE).unlink(missing_ok=True)

    def seal(self) -> None:
        """Write the checksums of all files; nothing is changed after this."""
        lines = []
        for path in sorted(self.folder.iterdir()):
            if path.is_file() and not path.name.startswith(".") and path.name not in (SUMS, "log"):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                lines.append(f"{digest}  {path.name}\n")
        self.write_text(SUMS, "".join(lines))

    def close(self) -> None:
        """Let others measure."""
        self._progress.close()
        self._lock.close()


def as_json(figures: dict[str, Any]) -> str:
    """Return the text of run.json."""
    # default=str: provenance may hold TOML's dates.
    return json.dumps(figures, indent=2, ensure_ascii=False, default=str) + "\n"


def hold(path: Path) -> IO[str] | None:
    """Hold a shared lock on a file as long as the result is open, where there is such a file.

    A deployment removes old releases, but none whose list of checksums is held.
    """
    try:
        file = path.open(encoding="utf-8")
    except OSError:
        return None
    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return file


def _locked(path: Path, name: str) -> IO[str]:
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        other = file.read(200).strip()
        file.close()
        raise StoreError(f"another measurement is running: {other or path.parent}") from None
    file.truncate(0)
    file.write(name + "\n")
    file.flush()
    return file


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float | np.floating) and not np.isfinite(value)):
        return ""
    if isinstance(value, bool | np.bool_):
        return int(value)
    return f"{value:.9g}" if isinstance(value, float | np.floating) else value


def _flush(file: IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make a renaming last: it is an entry of the directory."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
