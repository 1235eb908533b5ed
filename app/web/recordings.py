"""Recordings: the figures of an interval that someone started and stopped on the page."""

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
MOST_ROWS = 24 * 60 * 60  # of all recordings together, about 50 MB

_ROWS_PER_CHUNK = 500  # of a download


class RecordingError(Exception):
    """A recording that cannot be started or stopped now; the text is one line for the user."""


class Recording:
    """Figures of every result, and the page's rows, between start and stop.

    The figures are exact to the frame. The rows are those that ended in the interval, so the
    first one may have begun up to a second before it.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.started = datetime.now(timezone.utc)
        self.rows: deque[str] = deque(maxlen=MOST_ROWS)  # as JSON: a third of the dict's size
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
        """End the interval: nothing is added from now on."""
        self._seconds = time.monotonic() - self._began

    def condense(self) -> None:
        """Keep of a stopped recording's figures the report; the histograms are large."""
        if self._figures is not None:
            self._report = self._figures.report()
            self._figures = None

    def figures(self) -> dict[str, Any]:
        """Return `RunFigures.report()`; of a running recording, as far as it is."""
        figures = self._figures
        return self._report if figures is None else figures.report()

    def summary(self) -> dict[str, Any]:
        """Return what the page's table shows; watts are the mean per rail, None if unmeasured."""
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
        """Yield one JSON object: recording, facts, figures, rows_left_out, rows."""
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
    """The last recordings, at most one of them running. Not locked: its owner does that."""

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
            raise RecordingError(f"recording {recording.number} is stopped already")
        self.current = None
        self.changes += 1
        recording.stop()

    def add_row(self, row: Row) -> None:
        if self.current is not None:
            self.current.add_row(row)
            self._forget_old()

    def _forget_old(self) -> None:
        """Drop the oldest ones where there are too many, or too many rows in all."""
        rows = sum(len(recording.rows) for recording in self._kept.values())
        while len(self._kept) > 1 and (len(self._kept) > MOST_RECORDINGS or rows > MOST_ROWS):
            oldest = self._kept.pop(next(iter(self._kept)))
            rows -= len(oldest.rows)

    def get(self, number: int) -> Recording | None:
        return self._kept.get(number)

    def all(self) -> list[Recording]:
        return list(self._kept.values())
