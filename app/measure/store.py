"""The files of a measurement. They are whole at any time, whatever ends the process; only where it
is killed while it adds rows to a CSV file, the last ones may be missing or cut off.

run.json        all figures; replaced in one step after every measured window
summary.md      the same as a table
frames.csv      every frame of every window
power.csv       every reading of the rails in W, idle phases included: time_s,12V_W,...
condition.csv   temperature, clocks and other work, once per second
progress.jsonl  one line for each phase, for whoever watches
SHA256SUMS      of all files above; there when the run has ended
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
# Room that is given up at the end, so that the end can be told where the disk is full.
_RESERVE, _RESERVE_BYTES = ".reserve", 1 << 20
_ROWS_AT_ONCE = 4096  # as text in memory
# Digits behind the point by a column's unit: finer than clocks and sensors are.
_PLACES = {"s": 6, "ms": 4, "W": 4, "c": 2, "mhz": 1, "cores": 4}


class StoreError(TutelageError):
    """A measurement cannot be stored there; the text is one line for the user."""

    status = FAILED


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turn errors of the system into one line with the directory."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror or error}") from error


class Store:
    """A new directory for one measurement, held against others until `close`.

    Parameters
    ----------
    folder : does not exist, or holds no measurement; its parent holds the lock: one measurement
        at a time

    Raises
    ------
    StoreError
        It holds a measurement, another one is running, or nothing can be written there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._origin = time.monotonic()
        with _told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder.parent / _LOCK, folder.name)
            if not _OWN.isdisjoint(path.name for path in folder.iterdir()):
                self._lock.close()
                raise StoreError(f"{folder}: has a measurement already; take another directory")
            self._progress = (folder / PROGRESS).open("w", encoding="utf-8")
            (folder / _RESERVE).write_bytes(bytes(_RESERVE_BYTES))

    @property
    def origin(self) -> float:
        """Monotonic time (s) from which times in all files count."""
        return self._origin

    def event(self, kind: str, /, **details: Any) -> None:
        """Add a line to the progress, at once on the disk."""
        at = round(time.monotonic() - self._origin, 3)
        with _told(self.folder):
            self._progress.write(json.dumps({"at": at, "event": kind, **details}) + "\n")
            _flush(self._progress)

    def write_text(self, name: str, text: str) -> None:
        """Put a file in place in one step: whoever reads it sees the old one or the new one."""
        with _told(self.folder):
            write_file(self.folder / name, text, durable=True)

    def append(self, name: str, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
        """Add rows to a CSV file, None and NaN empty.

        A column's name ends in its unit, which says how many digits of its numbers matter.
        """
        # No buffer: what it held would still be written after the file was cut.
        with _told(self.folder), (self.folder / name).open("ab", buffering=0) as file:
            size = file.tell()
            try:
                for block in _csv(columns, rows if size else chain([columns], rows)):
                    while block:
                        block = block[file.write(block) :]
                os.fsync(file.fileno())
            except BaseException:
                os.ftruncate(file.fileno(), size)  # no torn line stays where the disk is full
                raise

    def free_reserve(self) -> None:
        """Make room for the last words."""
        with _told(self.folder):
            (self.folder / _RESERVE).unlink(missing_ok=True)

    def seal(self) -> None:
        """Write the checksums of all files; nothing is changed after this."""
        lines = []
        for path in sorted(self.folder.iterdir()):
            if path.is_file() and not path.name.startswith(".") and path.name not in (SUMS, "log"):
                with _told(self.folder):
                    lines.append(f"{sha256_of(path)}  {path.name}\n")
        self.write_text(SUMS, "".join(lines))

    def close(self) -> None:
        """Let others measure."""
        self._progress.close()
        self._lock.close()


def hold(path: Path) -> IO[str] | None:
    """Hold a shared lock on a file as long as the result is open, where there is such a file.

    A deployment removes old releases, but none whose list of checksums is held. Raises StoreError
    where it is removing this one.
    """
    try:
        file = path.open(encoding="utf-8")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise StoreError(f"{path.parent}: a deployment is at work on this release") from None
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
        # Times of a run of days keep their microseconds; others are not known to 9 digits.
        return f"{rounded:.9g}" if places is None else f"{rounded:.15g}"
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, str):
        return csv_text(value)
    return "" if value is None else value


def _csv(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> Iterator[bytes]:
    """Yield the lines of a table, some thousands at a time: of an hour's frames there are many."""
    left = iter(rows)
    places = [_PLACES.get(name.rpartition("_")[2]) for name in columns]
    while block := list(islice(left, _ROWS_AT_ONCE)):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(map(_cell, row, places) for row in block)
        yield text.getvalue().encode()


def _flush(file: IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())
