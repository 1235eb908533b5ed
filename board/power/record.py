"""What the power sampler keeps: running sums in memory that is allocated once.

A record holds rows of one thing: the time (monotonic, s), a value, and sums that run from the
first row on. What happened between two times is the difference of two rows, however many lie
between them.
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
    """What a record knows of a window of time.

    Attributes
    ----------
    first, last : the part of the window that the record covers, s
    sums : by how much each sum grew between them
    whole_steps : the same between the rows around them
    values : the rows' values in the window, as far as every row is still kept
    highest : the highest value, NaN where there is none
    complete : every row of the window is still kept
    """

    first: float
    last: float
    sums: tuple[float, ...]
    whole_steps: tuple[float, ...]
    values: Floats
    highest: float
    complete: bool


class Ring:
    """The last rows of a table, in memory that is allocated once; columns[0] rises."""

    def __init__(self, capacity: int, columns: int):
        self._rows = np.zeros((max(1, capacity), columns))  # pages are taken as they are written
        self._capacity = len(self._rows)
        self._bytes = self._rows.data.cast("B")
        times: Any = self._rows[:, _TIME]  # mypy knows no buffers below Python 3.12
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
        """Return a row, 0 the oldest."""
        place = (self._oldest() + index) % self._capacity
        return self._format.unpack_from(self._bytes, place * self._format.size)

    def time(self, index: int) -> float:
        return float(self._times[(self._oldest() + index) % self._capacity])

    def position(self, moment: float) -> int:
        """Return how many rows are at or before a time."""
        oldest, newer = self._oldest(), self._capacity - self._oldest()
        if oldest and self._times[self._capacity - 1] <= moment:
            return newer + bisect_right(self._times, moment, 0, oldest)
        end = self._capacity if oldest else len(self)
        return bisect_right(self._times, moment, oldest, end) - oldest

    def columns(self, first: int, last: int, columns: Any) -> Floats:
        """Return a copy of one column (or a slice of them) of the rows first..last-1, in order."""
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
    """Every row of the last minutes, and one per second of the last day.

    Windows that begin where every row is still kept are exact to the row, older ones to the
    second.
    """

    def __init__(self, rows: int, sums: int, smooth: bool = False):
        """Allocate memory for all that will ever be kept.

        Parameters
        ----------
        rows : so many are kept one by one
        sums : how many there are
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
        """Keep a row: time, value, sums; the cost does not depend on how many there were."""
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
        """Return a copy of columns of the rows of start..end (s, both inclusive), oldest first.

        `before`: so many rows more that precede them, where they are kept.
        """
        first = self._fine.position(math.nextafter(start, -math.inf))
        return self._fine.columns(max(0, first - before), self._fine.position(end), columns)

    def span(self, start: float, end: float) -> Span | None:
        """Return what is known between two times, s; None where no row is."""
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
        """Return the sums at a time within the record, and those of the rows around it."""
        before, after = self._around(moment)
        step = after[_TIME] - before[_TIME]
        share = (moment - before[_TIME]) / step if step > 0 else 0.0
        sums = [a + share * (b - a) for a, b in zip(before[_SUMS:], after[_SUMS:], strict=True)]
        slope = after[_VALUE] - before[_VALUE]
        # A step over which the integral does not rise is dark; coarse rows hold no single values.
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
