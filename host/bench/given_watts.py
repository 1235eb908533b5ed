"""Power that the user has measured, from `--watts ROW=W`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tutelage.core.results.bench_json import BenchRow
from tutelage.core.results.figure import GIVEN, Figure
from tutelage.host.bench.subject import BenchUsageError


def parse_watts(given: Sequence[str]) -> dict[str, float]:
    """Return watts by row from texts such as "openvino-int8=11.5".

    Raises
    ------
    BenchUsageError
        A text does not have that form, or its number is not positive and finite.
    """
    found = {}
    for text in given:
        name, equals, number = text.partition("=")
        try:
            watts = float(number)
        except ValueError:
            watts = math.nan
        if not equals or not 0 < watts < math.inf:
            raise BenchUsageError(
                f"--watts {text}: give a row and its watts, such as openvino-int8=11.5"
            )
        found[name] = watts
    return found


def check_rows(watts: dict[str, float], rows: Sequence[str]) -> None:
    """Raise BenchUsageError if watts are given for a row that does not exist."""
    for name in watts:
        if name not in rows:
            raise BenchUsageError(f"--watts {name}=...: no such row; choose from {', '.join(rows)}")


def give_watts(row: BenchRow, watts: float) -> None:
    """Set a row's power to the user's measurement, W, and its energy per frame accordingly."""
    row.watts = Figure(watts, n=1, unit="W", kind=GIVEN)
    row.power_source, row.power_reason = GIVEN, ""
    row.power_scope = "as measured by the user"
    row.idle_watts = row.watts_above_idle = Figure(unit="W")  # these are of the meter here
    fps = row.fps.value or row.network_fps.value
    row.joules_per_frame = Figure(unit="J")
    if fps:
        row.joules_per_frame = Figure(watts / fps, n=1, unit="J", kind=GIVEN)
