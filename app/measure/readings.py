"""Readings of the machine's state and of the power rails, and their files."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tutelage.app.measure import store as storing
from tutelage.app.measure.store import Store
from tutelage.board import condition
from tutelage.board.condition import Condition, ConditionWatch
from tutelage.board.power import Power

READ_SECONDS = 1.0
"""Interval between two readings of the machine's state, s."""


class Readings:
    """Reader of the machine's state, and writer of these and of the power readings.

    Parameters
    ----------
    watch : reader of the machine's state
    power : power sampler
    files : directory of the results

    Attributes
    ----------
    conditions : readings of the machine's state, the oldest first
    """

    def __init__(self, watch: ConditionWatch, power: Power, files: Store) -> None:
        self._watch, self._power, self._files = watch, power, files
        self.conditions: list[Condition] = []
        self._written = 0  # number of conditions on the disk
        self._power_written = 0.0  # time of the last power reading on the disk

    def begin_power(self) -> None:
        """Leave all power readings so far out of the files."""
        self._power_written = time.monotonic()

    def look(self) -> None:
        """Read the machine's state if that is due; called several times per second."""
        now = time.monotonic()
        if not self.conditions or now - self.conditions[-1].time_s >= READ_SECONDS:
            self.conditions.append(self._watch.read())

    def between(self, start: float, end: float) -> list[Condition]:
        """Return the readings between two monotonic times, s, both inclusive."""
        return [reading for reading in self.conditions if start <= reading.time_s <= end]

    def save(self) -> None:
        """Write the readings that are not on the disk yet.

        Raises
        ------
        StoreError
            The disk is full. The next call tries again.
        """
        origin = self._files.origin
        columns, rows = self._power.rows(self._power_written)
        rows = rows[rows[:, 0] > self._power_written]
        if len(rows):
            last = float(rows[-1, 0])
            rows[:, 0] -= origin
            watts = (f"{rail}_W" for rail in columns[1:])
            self._files.append(storing.POWER, (columns[0], *watts), rows.tolist())
            self._power_written = last  # only after success, so that the next call tries again
        readings = self.conditions[self._written :]
        table = [[getattr(r, name) for name in condition.COLUMNS] for r in readings]
        for row in table:
            row[0] -= origin
        self._files.append(storing.CONDITION, condition.COLUMNS, table)
        self._written += len(readings)


def extremes(readings: Sequence[Condition]) -> dict[str, dict[str, float] | None]:
    """Return min, mean and max of each figure of the machine's state in a window."""
    found: dict[str, dict[str, float] | None] = {}
    for name in condition.COLUMNS:
        if name in ("time_s", "throttled", "wall_offset_s"):
            continue
        values = [v for v in (getattr(r, name) for r in readings) if v is not None]
        found[name] = None
        if values:
            mean = sum(values) / len(values)
            found[name] = {"min": min(values), "mean": mean, "max": max(values)}
    return found
