"""Records of the power sampler: running sums, in memory that is allocated once.

A row has a time (monotonic, s), a value, and sums since the first row. The sums of a window are the
differences of two rows, independent of the number of rows in between.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np

_COARSE_SECONDS = 86_400.0
_COARSE_STEP_SECONDS = 1.0
_TIME, _VALUE, _SUMS = range(3)

Floats = np.ndarray


@dataclass(frozen=True)
class Span:
    """The part of a window of time that a record covers.

    Attributes
    ----------
    first, last : start and end of this part, s
    sums : increase of each sum between them
    whole_steps : the same between the rows before and after them
    values : values of the rows in the window that are kept one by one
    highest : the highest value; NaN without any
    complete : whether every row of the window is kept
    """

    first: float
    last: float
    sums: tuple[float, ...]
    whole_steps: tuple[float, ...]
    values: Floats
    highest: float
    complete: bool


class Ring:
    """The last rows of a table, in memory that is allocated once. Column 0, the time, increases."""

    def __init__(self, capacity: int, columns: int):
        self._rows = np.zeros((max(1, capacity), columns))  # Linux allocates pages when written
        self._capacity = len(self._rows)
        self._bytes = self._rows.data.cast("B")
        times: Any = self._rows[:, _TIME]  # mypy supports buffers from Python 3.12 on
        self._times = memoryview(times)
        self._format = struct.Struct(f"{columns}d")  # a third of the time of numpy's assignment
        self._count = 0

    def append(self, row: tuple[float, ...]) -> None:
        place = self._count % self._capacity
        self._format.pack_into(self._bytes, place * self._format.size, *row)
        self._count += 1

    def __len__(self) -> int:
        return min(self._count, self._capacity)

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes

    def row(self, index: int) -> tuple[float, ...]:
        """Return a row; 0 is the oldest."""
        place = (self._oldest() + index) % self._capacity
        return self._format.unpack_from(self._bytes, place * self._format.size)

    def time(self, index: int) -> float:
        return float(self._times[(self._oldest() + index) % self._capacity])

    def position(self, moment: float) -> int:
        """Return the number of rows at or before a time."""
        oldest, newer = self._oldest(), self._capacity - self._oldest()
        if oldest and self._times[self._capacity - 1] <= moment:
            return newer + bisect_right(self._times, moment, 0, oldest)
        end = self._capacity if oldest else len(self)
        return bisect_right(self._times, moment, oldest, end) - oldest

    def columns(self, first: int, last: int, columns: Any) -> Floats:
        """Return a copy of a column (or a slice of columns) of the rows first..last-1, in order."""
        begin = self._oldest() + first
        end = max(begin, self._oldest() + last)
        wrapped = max(0, end - self._capacity)
        rows = self._rows[begin : end - wrapped, columns]
        if begin >= self._capacity:
            return self._rows[begin - self._capacity : wrapped, columns].copy()
        return np.concatenate((rows, self._rows[:wrapped, columns])) if wrapped else rows.copy()

    def _oldest(self) -> int:
        return self._count % self._capacity if self._count > self._capacity else 0


class Record:
    """Every row of the last minutes, and one row per second of the last day.

    A window is exact to the row if every row at its start is kept, or else to the second.
    """

    def __init__(self, rows: int, sums: int, smooth: bool = False):
        """Allocate all memory.

        Parameters
        ----------
        rows : number of rows that are kept one by one
        sums : number of sums in a row
        smooth : the first sum is the integral of the value, which is linear between two rows
        """
        self._fine = Ring(rows, _SUMS + sums)
        self._coarse = Ring(round(_COARSE_SECONDS / _COARSE_STEP_SECONDS), _SUMS + sums)
        self._smooth = smooth
        self._highest = -math.inf  # since the last coarse row
        self._next_coarse = -math.inf

    def __len__(self) -> int:
        return len(self._fine)

    @property
    def nbytes(self) -> int:
        return self._fine.nbytes + self._coarse.nbytes

    def append(self, row: tuple[float, ...]) -> None:
        """Add a row (time, value, sums...), at constant cost."""
        self._fine.append(row)
        value = row[_VALUE]
        if value > self._highest:  # NaN is not
            self._highest = value
        if row[_TIME] < self._next_coarse:
            return
        self._next_coarse = row[_TIME] + _COARSE_STEP_SECONDS
        highest = self._highest if self._highest > -math.inf else math.nan
        self._coarse.append((row[_TIME], highest, *row[_SUMS:]))
        self._highest = -math.inf

    def rows(self, start: float, end: float, columns: Any, before: int = 0) -> Floats:
        """Return a copy of columns of the rows from start to end (s, inclusive), oldest first.

        Parameters
        ----------
        before : number of additional earlier rows, as far as they are kept
        """
        first = self._fine.position(math.nextafter(start, -math.inf))
        return self._fine.columns(max(0, first - before), self._fine.position(end), columns)

    def span(self, start: float, end: float) -> Span | None:
        """Return the record of a window between two times, s; None without rows."""
        if not len(self._fine) or not end > start:
            return None
        fine = self._fine
        oldest, newest = self._coarse.time(0), fine.time(len(fine) - 1)
        first, last = min(max(start, oldest), newest), min(max(end, oldest), newest)
        at_first, before, _ = self._at(first)
        at_last, _, after = self._at(last)
        inside = fine.position(math.nextafter(first, -math.inf)), fine.position(last)
        values = fine.columns(*inside, _VALUE)
        complete = first >= fine.time(0)
        return Span(
            first=first,
            last=last,
            sums=tuple(b - a for a, b in zip(at_first, at_last, strict=True)),
            whole_steps=tuple(b - a for a, b in zip(before, after, strict=True)),
            values=values,
            highest=self._highest_value(values, None if complete else (first, last)),
            complete=complete,
        )

    def _at(self, moment: float) -> tuple[tuple[float, ...], ...]:
        """Return the sums at a time within the record, and those of the rows before and after."""
        before, after = self._around(moment)
        step = after[_TIME] - before[_TIME]
        share = (moment - before[_TIME]) / step if step > 0 else 0.0
        sums = [a + share * (b - a) for a, b in zip(before[_SUMS:], after[_SUMS:], strict=True)]
        slope = after[_VALUE] - before[_VALUE]
        # An interval without an increase has no data. Coarse rows have no single values.
        rising = after[_SUMS] > before[_SUMS] and before[_TIME] >= self._fine.time(0)
        if self._smooth and rising and math.isfinite(slope):
            sums[0] += step * (share * share - share) / 2 * slope
        return tuple(sums), before[_SUMS:], after[_SUMS:] if share > 0 else before[_SUMS:]

    def _around(self, moment: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
        oldest_fine = self._fine.row(0)
        fine = moment >= oldest_fine[_TIME]
        ring = self._fine if fine else self._coarse
        after = ring.position(moment)
        before = ring.row(after - 1)
        if after < len(ring):
            following = ring.row(after)
        else:
            following = before if fine else oldest_fine
        if not fine and oldest_fine[_TIME] < following[_TIME]:
            following = oldest_fine
        return before, following

    def _highest_value(self, values: Floats, coarse: tuple[float, float] | None) -> float:
        if coarse:
            first, last = (self._coarse.position(moment) for moment in coarse)
            values = np.concatenate((values, self._coarse.columns(first, last, _VALUE)))
        return float(np.fmax.reduce(values)) if len(values) else math.nan
