"""What rows of the comparison have in common: families, stages, and watts that a user gives."""

from __future__ import annotations

from tutelage.core.results.bench_json import BenchRow
from tutelage.core.results.figure import GIVEN, Figure

DPU = "dpu"
"""Family of rows that are about a DPU; those of platforms are in host/bench/platform.py."""

WHOLE_FRAME = "image in memory, preprocessing, network, top-1"
NETWORK_ALONE = "network alone"


def give_watts(row: BenchRow, watts: float) -> None:
    """Take the user's own measurement of a row's power."""
    row.watts = Figure(watts, n=1, unit="W", kind=GIVEN)
    row.power_source, row.power_reason = GIVEN, ""
    row.power_scope = "whatever the user's meter measures"
    fps = row.fps.value or row.network_fps.value
    row.joules_per_frame = Figure(unit="J")
    if fps:
        row.joules_per_frame = Figure(watts / fps, n=1, unit="J", kind=GIVEN)
