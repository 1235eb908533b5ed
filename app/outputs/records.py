"""Output of records: one JSON object or one CSV row per frame."""

from __future__ import annotations

import csv
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

from tutelage.app.outputs.output import Output, OutputError
from tutelage.app.outputs.registry import OutputContext, has_suffix, register_output
from tutelage.app.pipeline.result import Result
from tutelage.core.text import csv_cells, json_text

_is_json_lines = has_suffix(".jsonl")


@register_output(
    lambda uri: uri == "-" or has_suffix(".jsonl", ".csv")(uri),
    {"seen.jsonl, seen.csv": "a record per frame; - is JSONL on standard output"},
    place=10,
)
def open_records(uri: str, _context: OutputContext) -> Output:
    """Open a file of records, or standard output.

    Raises
    ------
    OutputError
        The file cannot be created.
    """
    if uri == "-":
        return JsonLines(sys.stdout)
    path = Path(uri)
    try:
        file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise OutputError(f"{uri}: {error.strerror or error}") from error
    return JsonLines(file) if _is_json_lines(uri) else CsvTable(file)


class _TextFile(Output):
    """Text file that the pipeline's threads write and the main thread flushes.

    A reader that follows the file sees results soon, without a flush for each of them.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.on_standard_output = file is sys.stdout
        self._lock = threading.Lock()  # text files cannot be written and flushed concurrently

    def look(self) -> None:
        with self._lock:
            self._file.flush()

    def close(self) -> None:
        if self.on_standard_output:
            self._file.flush()
        else:
            self._file.close()


class JsonLines(_TextFile):
    """A JSON object per frame, one per line."""

    def add(self, result: Result) -> None:
        line = json_text(_record(result)) + "\n"
        with self._lock:
            self._file.write(line)


class CsvTable(_TextFile):
    """A CSV table with a row per frame; `tutelage.core.text.csv_text` escapes its texts."""

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
    # Scores are float32, so a confidence has seven significant digits.
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
