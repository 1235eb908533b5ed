"""State of a run for the live page: the newest result, one row per second, recordings.

Results are counted in the pipeline's thread; everything else is computed in the thread that asks
for it. Memory is constant, however long the run takes.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from tutelage.app.pipeline.result import Result
from tutelage.app.web.recordings import Recording, Recordings
from tutelage.app.web.rows import Row, latencies_of, read_gauges
from tutelage.app.web.tally import Answer, Confusion, label_of
from tutelage.core.text import shown

HISTORY_ROWS = 300  # five minutes

_MOST_LATENCIES = 20_000  # per second; beyond that, only the newest are used
_MOST_ANSWERS = 20_000  # until they are counted; beyond that, a row's label is that of the newest
_LONGEST_TEXT = 300  # characters of a label, a name or an error


class Monitor:
    """Counter of results that adds a row every second and keeps the rows of five minutes.

    Parameters
    ----------
    gauges : function that returns the current values of other quantities; may raise
    length : number of frames of the source, None if unknown
    """

    def __init__(self, gauges: Callable[[], Mapping[str, Any]], length: int | None) -> None:
        self._gauges = gauges
        self._length = length
        self._lock = threading.Lock()
        self._recordings = Recordings()
        self._history: deque[Row] = deque(maxlen=HISTORY_ROWS)
        self._wall, self._began = time.time(), time.monotonic()
        self._ticked, self._classified_before = self._began, 0
        self._newest: Result | None = None
        self.frames = self.failed = 0
        self.over = False
        self._error: str | None = None
        self._latencies: deque[float] = deque(maxlen=_MOST_LATENCIES)
        self._answers: list[Answer] = []
        self._confusion = Confusion()
        self._confusion_of: tuple[int, dict[str, Any] | None] = 0, None  # a row and its report

    def add(self, result: Result) -> None:
        """Count one result, in a few microseconds; most of that is for a running recording."""
        total = result.milliseconds.get("total")
        with self._lock:
            self._newest = result
            self.frames += 1
            if result.error is not None:
                self.failed += 1
            else:
                if total is not None:
                    self._latencies.append(total)
                if result.top:
                    self._answers.append((result.true_label, result.top[0]))
                    if len(self._answers) == _MOST_ANSWERS:
                        self._take_answers()
            if self._recordings.current is not None:
                self._recordings.current.add(result)

    def _take_answers(self) -> list[Answer]:
        answers, self._answers = self._answers, []
        self._confusion.add(answers)
        return answers

    def tick(self) -> None:
        """Add a row of the results since the last one, and of the gauges, which are read here."""
        gauges = read_gauges(self._gauges)
        with self._lock:
            now = time.monotonic()
            latencies, self._latencies = self._latencies, deque(maxlen=_MOST_LATENCIES)
            frames, failed = self.frames, self.failed
            answers = self._take_answers()
            labelled, correct = self._confusion.labelled, self._confusion.correct
        classified, seconds = frames - failed, now - self._ticked
        row: Row = {
            "number": self._history[-1]["number"] + 1 if self._history else 1,
            "time": round(self._wall + now - self._began, 3),
            "uptime_s": round(now - self._began, 3),
            "frames": frames,
            "failed": failed,
            "labelled": labelled,
            "correct": correct,
            "length": self._length,
            "fps": round((classified - self._classified_before) / seconds, 2) if seconds else 0.0,
            **latencies_of(latencies),
            **label_of(answers),
            **gauges,
        }
        self._ticked, self._classified_before = now, classified
        with self._lock:
            self._history.append(row)
            self._recordings.add_row(row)

    def rows(self, after: int = 0) -> list[Row]:
        """Return the rows of the last five minutes whose number is larger than `after`."""
        with self._lock:
            return [row for row in self._history if row["number"] > after]

    def newest(self) -> tuple[int, Result] | None:
        """Return the newest result with its number, from 1; None before the first one."""
        with self._lock:
            return None if self._newest is None else (self.frames, self._newest)

    def verdict(self) -> dict[str, Any] | None:
        """Return the newest result without its image, None before the first one."""
        newest = self.newest()
        return None if newest is None else verdict_of(*newest)

    def confusion(self) -> dict[str, Any] | None:
        """Return `Confusion.report` as of the newest row, computed once per row."""
        with self._lock:
            row = self._history[-1]["number"] if self._history else 0
            if self._confusion_of[0] == row:
                return self._confusion_of[1]
            counts = self._confusion.copy()
        report = counts.report()
        self._confusion_of = row, report
        return report

    def start_recording(self) -> Recording:
        """Start a recording; raises RecordingError if one is running."""
        with self._lock:
            return self._recordings.start()

    def stop_recording(self, recording: Recording) -> None:
        """Stop a recording; raises RecordingError if it is already stopped."""
        with self._lock:
            self._recordings.stop(recording)
        recording.condense()  # outside the lock: takes milliseconds, and results must not wait

    @property
    def recording_changes(self) -> int:
        """Number of starts and stops so far, by which a reader notices a change."""
        return self._recordings.changes

    def end_run(self, error: str | None = None) -> None:
        """Record that no more results come, and why; a running recording is stopped."""
        with self._lock:
            self.over = True
            self._error = error
            running = self._recordings.current
        if running is not None:
            self.stop_recording(running)

    def counts(self) -> dict[str, Any]:
        """Return the numbers of frames and failures, and the error if one ended the run."""
        error = {} if self._error is None else {"error": _shown(self._error)}
        return {"frames": self.frames, "failed": self.failed, **error}

    def recording(self, number: int) -> Recording | None:
        with self._lock:
            return self._recordings.get(number)

    def recordings(self) -> list[dict[str, Any]]:
        """Return the summaries of all recordings, the oldest first."""
        with self._lock:
            kept = self._recordings.all()
        return [recording.summary() for recording in kept]


def verdict_of(number: int, result: Result) -> dict[str, Any]:
    """Return a result as JSON for the page, without its image.

    Parameters
    ----------
    number : number of the result, from 1
    """
    return {
        "number": number,
        "name": _shown(result.frame.name),
        "top": [[_shown(label), _finite(confidence)] for label, confidence in result.top],
        "true_label": _shown(result.true_label),
        "error": _shown(result.error),
    }


def _shown(text: str | None) -> str | None:
    return None if text is None else shown(text, _LONGEST_TEXT)


def _finite(confidence: float) -> float | None:
    return round(float(confidence), 6) if math.isfinite(confidence) else None
