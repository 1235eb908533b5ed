"""What the page knows of the run: the newest result, a row per second, recordings.

Results come in from the pipeline's thread and are counted there; everything else is done by
those who ask. Memory is constant, however long the run.
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

_MOST_LATENCIES = 20_000  # per second; beyond that the newest stand for all
_MOST_ANSWERS = 20_000  # that wait to be counted; beyond that a second's label is of the newest
_LONGEST_TEXT = 300  # characters of a label, a name or an error


class Monitor:
    """Counts results, makes a row of them each second, and keeps the last ones.

    Parameters
    ----------
    gauges : returns the current values of what is measured besides; may raise
    length : frames of the source, None where that is not known
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
        """Count one result: a few microseconds, most of them where a recording is running."""
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
        """Make a row of what came since the last one. Gauges are read here."""
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
        """Return the rows of the last five minutes, those above a number only."""
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
        """Return `Confusion.report` as of the newest row; made once a row, for all who ask."""
        with self._lock:
            row = self._history[-1]["number"] if self._history else 0
            if self._confusion_of[0] == row:
                return self._confusion_of[1]
            counts = self._confusion.copy()
        report = counts.report()
        self._confusion_of = row, report
        return report

    def start_recording(self) -> Recording:
        """Start one; raises RecordingError where one is running."""
        with self._lock:
            return self._recordings.start()

    def stop_recording(self, recording: Recording) -> None:
        """Stop one; raises RecordingError where it is stopped already."""
        with self._lock:
            self._recordings.stop(recording)
        recording.condense()  # takes milliseconds, in which results must not wait

    @property
    def recording_changes(self) -> int:
        """How often a recording was started or stopped: tells whether to look again."""
        return self._recordings.changes

    def end_run(self, error: str | None = None) -> None:
        """Take note that no more results come, and why; a recording that runs ends with them."""
        with self._lock:
            self.over = True
            self._error = error
            running = self._recordings.current
        if running is not None:
            self.stop_recording(running)

    def counts(self) -> dict[str, Any]:
        """Return how many frames came and failed, and the error where one ended the run."""
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
    """Return a result as the page takes it, without its image.

    Parameters
    ----------
    number : of the result, from 1
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
