"""Results as records: one JSON object or one CSV row per frame."""

from __future__ import annotations

import csv
import sys
import threading
from typing import Any, TextIO

from tutelage.app.outputs.by_uri import Output
from tutelage.app.pipeline.result import Result
from tutelage.core.text import csv_cells, json_text


class _TextFile(Output):
    """Writes from the pipeline's threads, flushes from the main one.

    Whoever follows the file sees results as they come, without a flush for each of them.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()  # text files are not safe to write and flush at once

    def look(self) -> None:
        with self._lock:
            self._file.flush()

    def close(self) -> None:
        if self._file is sys.stdout:
            self._file.flush()
        else:
            self._file.close()


class JsonLines(_TextFile):
    """One JSON object per frame and line."""

    def add(self, result: Result) -> None:
        line = json_text(_record(result)) + "\n"
        with self._lock:
            self._file.write(line)


class CsvTable(_TextFile):
    """A CSV table, one row per frame; texts as `tutelage.core.text.csv_text` writes them."""

    _COLUMNS = ("index", "name", "label", "confidence", "true_label", "error", "total_ms")

    def __init__(self, file: TextIO) -> None:
        super().__init__(file)
        self._writer = csv.DictWriter(file, self._COLUMNS, extrasaction="ignore")
        self._writer.writeheader()

    def add(self, result: Result) -> None:
        record = _record(result)
        record["total_ms"] = record["milliseconds"].get("total")
        with self._lock:
            self._writer.writerow(csv_cells(record))


def _record(result: Result) -> dict[str, Any]:
    # Scores are float32: seven digits are all that a confidence has.
    top = [(label, float(f"{confidence:.7g}")) for label, confidence in result.top]
    label, confidence = top[0] if top else (None, None)
    return {
        "index": result.frame.index,
        "name": result.frame.name,
        "label": label,
        "confidence": confidence,
        "top": top,
        "true_label": result.true_label,
        "error": result.error,
        "milliseconds": {stage: round(value, 4) for stage, value in result.milliseconds.items()},
    }
