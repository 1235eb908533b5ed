"""Recordings: the figures of an interval that a viewer starts and stops on the page."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import islice
from typing import Any

from tutelage.app.pipeline.result import Result
from tutelage.app.pipeline.run_figures import RunFigures
from tutelage.app.web.rows import Row, csv_header, csv_row
from tutelage.core.text import json_text

MOST_RECORDINGS = 10
MOST_ROWS = 24 * 60 * 60  # in all recordings together, about 50 MB

_ROWS_PER_CHUNK = 500  # in a download


class RecordingError(Exception):
    """A recording cannot be started or stopped now; the message is one line for the user."""


class Recording:
    """Figures of every result, and the page's rows, between start and stop.

    The figures include exactly the frames of the interval. The rows are those that ended in the
    interval, so the first one may begin up to a second before it.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.started = datetime.now(timezone.utc)
        self.rows: deque[str] = deque(maxlen=MOST_ROWS)  # as JSON: a third of a dict's size
        self.rows_left_out = 0
        self._began = time.monotonic()
        self._seconds: float | None = None
        self._figures: RunFigures | None = RunFigures()
        self._report: dict[str, Any] = {}
        self._watts: dict[str, tuple[float, int]] = {}  # sum and count per rail

    @property
    def running(self) -> bool:
        return self._seconds is None

    @property
    def rails(self) -> list[str]:
        return list(self._watts)

    def add(self, result: Result) -> None:
        if self._figures is not None:
            self._figures.add(result)

    def add_row(self, row: Row) -> None:
        self.rows_left_out += len(self.rows) == MOST_ROWS
        self.rows.append(json.dumps(row))
        for rail, watts in (row["watts"] or {}).items():
            total, count = self._watts.get(rail, (0.0, 0))
            self._watts[rail] = total + watts, count + 1

    def stop(self) -> None:
        """End the interval: nothing is added after this."""
        self._seconds = time.monotonic() - self._began

    def condense(self) -> None:
        """Replace a stopped recording's figures, whose histograms are large, by their report."""
        if self._figures is not None:
            self._report = self._figures.report()
            self._figures = None

    def figures(self) -> dict[str, Any]:
        """Return `RunFigures.report()`; for a running recording, up to now."""
        figures = self._figures
        return self._report if figures is None else figures.report()

    def summary(self) -> dict[str, Any]:
        """Return a line of the page's table; watts are the mean per rail, None if not measured."""
        figures = self.figures()
        total = figures["latency_ms"].get("total", {})
        seconds = self._seconds
        return {
            "id": self.number,
            "started": self.started.isoformat(timespec="milliseconds"),
            "running": seconds is None,
            "seconds": round(time.monotonic() - self._began if seconds is None else seconds, 3),
            "frames": figures["frames"]["in"],
            "failed": figures["frames"]["failed"],
            "fps": figures["fps"],
            "p50_ms": total.get("p50"),
            "p99_ms": total.get("p99"),
            "watts": self.mean_watts(),
        }

    def mean_watts(self) -> dict[str, float] | None:
        means = {rail: round(total / n, 4) for rail, (total, n) in list(self._watts.items())}
        return means or None

    def file_name(self, suffix: str) -> str:
        return f"tutelage-{self.started:%Y%m%d-%H%M%S}-{self.number}{suffix}"

    def json_chunks(self, facts: dict[str, Any]) -> Iterator[str]:
        """Yield one JSON object with recording, facts, figures, rows_left_out and rows."""
        head = {
            "recording": self.summary(),
            "facts": facts,
            "figures": self.figures(),
            "rows_left_out": self.rows_left_out,
        }
        yield json_text(head, indent=2)[: -len("\n}")] + ',\n  "rows": ['
        before = "\n    "
        for rows in _chunks(list(self.rows)):
            yield before + ",\n    ".join(rows)
            before = ",\n    "
        yield "\n  ]\n}\n"

    def csv_chunks(self) -> Iterator[str]:
        """Yield a table with one line per row."""
        rails = self.rails
        yield csv_header(rails)
        for rows in _chunks(list(self.rows)):
            yield "".join(csv_row(json.loads(row), rails) for row in rows)


def _chunks(rows: list[str]) -> Iterator[list[str]]:
    left = iter(rows)
    while chunk := list(islice(left, _ROWS_PER_CHUNK)):
        yield chunk


class Recordings:
    """The newest recordings, of which at most one is running. Without a lock; its owner has one."""

    def __init__(self) -> None:
        self._kept: dict[int, Recording] = {}
        self._count = 0
        self.current: Recording | None = None
        self.changes = 0  # starts and stops so far

    def start(self) -> Recording:
        if self.current is not None:
            raise RecordingError(f"recording {self.current.number} is running; stop it first")
        self._count += 1
        self.changes += 1
        self.current = self._kept[self._count] = Recording(self._count)
        self._forget_old()
        return self.current

    def stop(self, recording: Recording) -> None:
        if recording is not self.current:
            raise RecordingError(f"recording {recording.number} is already stopped")
        self.current = None
        self.changes += 1
        recording.stop()

    def add_row(self, row: Row) -> None:
        if self.current is not None:
            self.current.add_row(row)
            self._forget_old()

    def _forget_old(self) -> None:
        """Drop the oldest recordings while there are too many, or too many rows in total."""
        rows = sum(len(recording.rows) for recording in self._kept.values())
        while len(self._kept) > 1 and (len(self._kept) > MOST_RECORDINGS or rows > MOST_ROWS):
            oldest = self._kept.pop(next(iter(self._kept)))
            rows -= len(oldest.rows)

    def get(self, number: int) -> Recording | None:
        return self._kept.get(number)

    def all(self) -> list[Recording]:
        return list(self._kept.values())
