"""The readings of a measurement, of the machine's state and of its rails, and their way to disk."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tutelage.app.measure import store as storing
from tutelage.app.measure.store import Store
from tutelage.board import condition
from tutelage.board.condition import Condition, ConditionWatch
from tutelage.board.power import Power

READ_SECONDS = 1.0
"""Between two readings of the machine's state."""


class Readings:
    """Reads the machine's state; writes it, and the power's readings, as far as that is not done.

    Parameters
    ----------
    watch : reads the machine's state
    power : the sampler of the rails
    files : where readings are written

    Attributes
    ----------
    conditions : the machine's state, the oldest first
    """

    def __init__(self, watch: ConditionWatch, power: Power, files: Store) -> None:
        self._watch, self._power, self._files = watch, power, files
        self.conditions: list[Condition] = []
        self._written = 0  # readings that are on the disk
        self._power_written = 0.0  # monotonic time up to which readings of rails are

    def begin_power(self) -> None:
        """Leave out of the files what the rails read so far."""
        self._power_written = time.monotonic()

    def look(self) -> None:
        """Read the machine's state where that is due; called several times per second."""
        now = time.monotonic()
        if not self.conditions or now - self.conditions[-1].time_s >= READ_SECONDS:
            self.conditions.append(self._watch.read())

    def between(self, start: float, end: float) -> list[Condition]:
        """Return the machine's states between two times, s, both inclusive."""
        return [reading for reading in self.conditions if start <= reading.time_s <= end]

    def save(self) -> None:
        """Write what has not been written.

        Raises
        ------
        StoreError
            There is no room; what could not be written is tried again the next time.
        """
        origin = self._files.origin
        columns, rows = self._power.rows(self._power_written)
        rows = rows[rows[:, 0] > self._power_written]
        if len(rows):
            last = float(rows[-1, 0])
            rows[:, 0] -= origin
            watts = (f"{rail}_W" for rail in columns[1:])
            self._files.append(storing.POWER, (columns[0], *watts), rows.tolist())
            self._power_written = last  # not before: where the disk is full it is tried again
        readings = self.conditions[self._written :]
        table = [[getattr(r, name) for name in condition.COLUMNS] for r in readings]
        for row in table:
            row[0] -= origin
        self._files.append(storing.CONDITION, condition.COLUMNS, table)
        self._written += len(readings)


def extremes(readings: Sequence[Condition]) -> dict[str, dict[str, float] | None]:
    """Return least, mean and most of each figure of the machine's state in a window."""
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
