"""The files of a measurement.

They are complete at any time, however the process ends, with one exception: if it is killed while
it appends rows to a CSV file, the last rows may be missing or truncated.

run.json        all figures; replaced atomically after every measured window
summary.md      the same as a table
frames.csv      every frame of every window
power.csv       every reading of the rails in W, including idle phases: time_s,12V_W,...
condition.csv   temperature, clocks and other work, once per second
progress.jsonl  one line for each phase
SHA256SUMS      checksums of all files above, written at the end
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from tutelage.core.errors import FAILED, TutelageError
from tutelage.core.files import sha256_of, write_file
from tutelage.core.results.run_json import RUN_FILE
from tutelage.core.text import csv_text

SUMMARY, PROGRESS, SUMS = "summary.md", "progress.jsonl", "SHA256SUMS"
FRAMES, POWER, CONDITION = "frames.csv", "power.csv", "condition.csv"
_OWN = {RUN_FILE, SUMMARY, PROGRESS, SUMS, FRAMES, POWER, CONDITION}
_LOCK = ".lock"
# Space that is released at the end, so that the final state can be written to a full disk.
_RESERVE, _RESERVE_BYTES = ".reserve", 1 << 20
_ROWS_AT_ONCE = 4096  # as text in memory
# Decimal places by a column's unit, finer than the resolution of clocks and sensors.
_PLACES = {"s": 6, "ms": 4, "W": 4, "c": 2, "mhz": 1, "cores": 4}


class StoreError(TutelageError):
    """The files of a measurement cannot be written; the message is one line."""

    status = FAILED


@contextmanager
def _as_store_error(folder: Path) -> Iterator[None]:
    """Raise an OSError as a StoreError with the directory."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror or error}") from error


class Store:
    """A new directory for one measurement, and the lock against others until `close`.

    Parameters
    ----------
    folder : directory without a measurement, which is created if missing. The lock file is in its
        parent, so that one measurement runs at a time

    Raises
    ------
    StoreError
        The directory has a measurement, another one is running, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._origin = time.monotonic()
        with _as_store_error(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder.parent / _LOCK, folder.name)
            if not _OWN.isdisjoint(path.name for path in folder.iterdir()):
                self._lock.close()
                raise StoreError(f"{folder}: has a measurement already; give another directory")
            self._progress = (folder / PROGRESS).open("w", encoding="utf-8")
            (folder / _RESERVE).write_bytes(bytes(_RESERVE_BYTES))

    @property
    def origin(self) -> float:
        """Monotonic time (s) that is zero in all files."""
        return self._origin

    def event(self, kind: str, /, **details: Any) -> None:
        """Append a line to progress.jsonl and flush it to the disk."""
        at = round(time.monotonic() - self._origin, 3)
        with _as_store_error(self.folder):
            self._progress.write(json.dumps({"at": at, "event": kind, **details}) + "\n")
            _flush(self._progress)

    def write_text(self, name: str, text: str) -> None:
        """Replace a file atomically."""
        with _as_store_error(self.folder):
            write_file(self.folder / name, text, durable=True)

    def append(self, name: str, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
        """Append rows to a CSV file, with None and NaN as empty cells.

        A column's name ends in its unit, which determines the digits of its numbers.
        """
        # Unbuffered: a buffer would still be written after the file was truncated.
        with _as_store_error(self.folder), (self.folder / name).open("ab", buffering=0) as file:
            size = file.tell()
            try:
                for block in _csv(columns, rows if size else chain([columns], rows)):
                    while block:
                        block = block[file.write(block) :]
                os.fsync(file.fileno())
            except BaseException:
                os.ftruncate(file.fileno(), size)  # leave no partial line on a full disk
                raise

    def free_reserve(self) -> None:
        """Release the reserved space, for the files that are written at the end."""
        with _as_store_error(self.folder):
            (self.folder / _RESERVE).unlink(missing_ok=True)

    def seal(self) -> None:
        """Write the checksums of all files. No file may change afterwards."""
        lines = []
        for path in sorted(self.folder.iterdir()):
            if path.is_file() and not path.name.startswith(".") and path.name not in (SUMS, "log"):
                with _as_store_error(self.folder):
                    lines.append(f"{sha256_of(path)}  {path.name}\n")
        self.write_text(SUMS, "".join(lines))

    def close(self) -> None:
        """Release the lock."""
        self._progress.close()
        self._lock.close()


def hold(path: Path) -> IO[str] | None:
    """Open a file and take a shared lock on it until the result is closed; None if it is missing.

    A deployment removes old releases, except those whose list of checksums is locked.

    Raises
    ------
    StoreError
        A deployment is removing this release.
    """
    try:
        file = path.open(encoding="utf-8")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise StoreError(f"{path.parent}: a deployment is removing this release") from None
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


def _cell(value: Any, places: int | None) -> Any:
    if isinstance(value, float):  # numpy's float64 is one too
        if not math.isfinite(value):
            return ""
        rounded = (value if places is None else round(value, places)) + 0.0  # no -0
        # 15 digits keep the microseconds of a run of days; other figures have at most 9.
        return f"{rounded:.9g}" if places is None else f"{rounded:.15g}"
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, str):
        return csv_text(value)
    return "" if value is None else value


def _csv(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> Iterator[bytes]:
    """Yield the lines of a table in blocks, which bounds the memory of long runs."""
    left = iter(rows)
    places = [_PLACES.get(name.rpartition("_")[2]) for name in columns]
    while block := list(islice(left, _ROWS_AT_ONCE)):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(map(_cell, row, places) for row in block)
        yield text.getvalue().encode()


def _flush(file: IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())
