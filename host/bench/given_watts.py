"""Power that the user has measured and gives: `--watts ROW=W`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tutelage.core.results.bench_json import BenchRow
from tutelage.core.results.figure import GIVEN, Figure
from tutelage.host.bench.subject import BenchUsageError


def parse_watts(given: Sequence[str]) -> dict[str, float]:
    """Return watts by row, of texts such as "openvino-int8=11.5"; raises BenchUsageError."""
    found = {}
    for text in given:
        name, equals, number = text.partition("=")
        try:
            watts = float(number)
        except ValueError:
            watts = math.nan
        if not equals or not 0 < watts < math.inf:
            raise BenchUsageError(
                f"--watts {text}: give a row and its watts, as openvino-int8=11.5"
            )
        found[name] = watts
    return found


def check_rows(watts: dict[str, float], rows: Sequence[str]) -> None:
    """Raise BenchUsageError where watts are given of a row that there is not."""
    for name in watts:
        if name not in rows:
            raise BenchUsageError(f"--watts {name}=...: no such row; there are {', '.join(rows)}")


def give_watts(row: BenchRow, watts: float) -> None:
    """Take the user's own measurement of a row's power."""
    row.watts = Figure(watts, n=1, unit="W", kind=GIVEN)
    row.power_source, row.power_reason = GIVEN, ""
    row.power_scope = "whatever the user's meter measures"
    fps = row.fps.value or row.network_fps.value
    row.joules_per_frame = Figure(unit="J")
    if fps:
        row.joules_per_frame = Figure(watts / fps, n=1, unit="J", kind=GIVEN)
