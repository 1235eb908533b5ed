"""Rows: the figures of one second of a run, from counts and gauges; and their form as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tutelage.core.results.percentiles import PERCENTS, percentile
from tutelage.core.text import csv_cell

# number: 1, 2, 3, ... per run. time: seconds since 1970 at the end of the row's second, by a clock
# that does not jump. uptime_s: since the page's server started. frames, failed, dropped: frames
# since then. labelled, correct: results since then whose true label is known, and the correct ones
# among them. length: number of frames of the source. fps and p50_ms .. p99_ms: of this second
# alone, latencies from reading a frame to the output of its result. label, confidence: the second's
# most frequent best label and its mean confidence. dpu_utilisation: upper bound, see app/pipeline.
# cpu_percent: of this process; 100 is one core. total_watts: the rail that includes all others. A
# quantity that was not measured is None.
Row = dict[str, Any]

QUEUES = ("waiting", "in_flight", "done")

_GAUGES = (
    *("dropped", "dpu_utilisation", "cpu_percent", "memory_bytes", "temperature_c"),
    "total_watts",
)
_MOST_RAILS = 32
_CSV_COLUMNS = (
    *("number", "time", "uptime_s", "frames", "failed", "dropped", "labelled", "correct", "fps"),
    *(f"p{percent}_ms" for percent in PERCENTS),
    *(f"queue_{queue}" for queue in QUEUES),
    *("dpu_utilisation", "cpu_percent", "memory_bytes", "temperature_c", "label", "confidence"),
)


def read_gauges(gauges: Callable[[], Mapping[str, Any]]) -> Row:
    """Return the gauges' part of a row: finite numbers or None, even if the gauges fail."""
    try:
        values = dict(gauges())
    except Exception:  # a failing sensor must not stop the page
        values = {}
    row: Row = {name: _finite(values.get(name)) for name in _GAUGES}
    queues = _mapping(values.get("queues"))
    row["queues"] = {queue: _finite(queues.get(queue)) for queue in QUEUES}
    rails = list(_mapping(values.get("watts")).items())[:_MOST_RAILS]
    watts = {str(rail): value for rail, watt in rails if (value := _finite(watt)) is not None}
    row["watts"] = watts or None
    return row


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _finite(value: Any) -> float | int | None:
    """Return a number that JSON can represent, None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        number = float(value)  # numpy's numbers too
    except (TypeError, ValueError):
        return None
    return round(number, 4) + 0.0 if math.isfinite(number) else None  # no -0.0


def latencies_of(milliseconds: Iterable[float]) -> Row:
    """Return p50_ms, p90_ms and p99_ms; each None if there are no values."""
    values = np.fromiter(milliseconds, np.float64)
    row: Row = {}
    for percent in PERCENTS:
        found = percentile(values, percent)
        row[f"p{percent}_ms"] = None if found is None else round(found, 4)
    return row


def csv_line(cells: Sequence[Any]) -> str:
    """Return one line of CSV; None becomes an empty cell."""
    text = io.StringIO()
    csv.writer(text).writerow(map(csv_cell, cells))
    return text.getvalue()


def csv_header(rails: Sequence[str]) -> str:
    return csv_line([*_CSV_COLUMNS, *(f"watts_{rail}" for rail in rails)])


def csv_row(row: Row, rails: Sequence[str]) -> str:
    flat = {**row, **{f"queue_{queue}": row["queues"][queue] for queue in QUEUES}}
    watts = row["watts"] or {}
    cells = [flat[column] for column in _CSV_COLUMNS]
    return csv_line([*cells, *(watts.get(rail) for rail in rails)])
