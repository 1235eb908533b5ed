"""The energy of one rail, summed reading by reading."""

from __future__ import annotations

import math

from tutelage.board.power.plausibility import FAR_ABOVE
from tutelage.board.power.record import Record
from tutelage.board.power.sources.source import Rail


class RailMeter:
    """Meter of one rail, which sums its energy reading by reading.

    Attributes
    ----------
    record : record of the readings; the value of a row is the power, W, and `add` explains its sums
    time : time of the last reading, s
    watts : the last reading, W; NaN if it was implausible
    flags : numbers of implausible readings, by kind
    """

    __slots__ = (
        "_counts", "_dark", "_flagged", "_joules", "_last", "_least", "_limit", "_longest",
        "_readings", "_side", "_unseen", "flags", "rail", "record", "time", "watts",
    )  # fmt: skip

    def __init__(self, rail: Rail, counts_energy: bool, side: bool, longest: float, rows: int):
        """Allocate memory for the record.

        Parameters
        ----------
        rail : the rail
        counts_energy : readings are energies since some time, J, instead of powers, W
        side : the rail is read in turn with others
        longest : longest interval between two readings over which power is interpolated, s
        rows : number of readings to keep
        """
        self.rail = rail
        self.record = Record(rows, sums=5, smooth=not counts_energy)
        self.flags = {"unreadable": 0, "implausible": 0, "current": 0}
        self.time = self.watts = math.nan
        self._counts = counts_energy
        self._side = side
        self._least, self._limit = rail.min_watts, FAR_ABOVE * rail.max_watts
        self._longest = longest
        self._last = math.nan  # the last reading, W or J
        self._joules = self._dark = self._unseen = 0.0
        self._flagged = self._readings = 0

    def add(self, value: float, now: float) -> None:
        """Add a reading of a later time.

        Records these sums: the energy of all intervals between two plausible readings, J; the
        duration of the other intervals, s; the number of implausible readings; the energy that may
        be missed between two readings of a rail that is read in turn, J, assuming that the power
        stays between them; the number of all readings.

        Parameters
        ----------
        value : power, W, or energy of a counter, J
        now : time of the reading, s
        """
        seconds = now - self.time if self._readings else 0.0
        self.time = now
        self._readings += 1
        last, self._last = self._last, value
        if self._counts:
            energy = value - last
            watts = energy / seconds if seconds > 0 else math.nan
        else:
            energy = (last + value) / 2 * seconds
            watts = value
        if self._least <= watts <= self._limit:
            self.watts = watts
            # Counters are exact over intervals of any length.
            if math.isfinite(energy) and (self._counts or seconds <= self._longest):
                self._joules += energy
                if self._side:
                    self._unseen += abs(value - last) / 2 * seconds
            else:
                self._dark += seconds
        else:
            self._reject(value, watts, seconds)
        self.record.append(
            (now, self.watts, self._joules, self._dark, self._flagged, self._unseen, self._readings)
        )

    def _reject(self, value: float, watts: float, seconds: float) -> None:
        self.watts = math.nan
        self._dark += seconds
        if not math.isfinite(value):
            self._flag("unreadable")
        elif not math.isnan(watts):  # a counter's first reading has no power yet
            self._flag("implausible")
        if not self._counts:
            self._last = math.nan

    def check_amps(self, amps: float) -> None:
        """Flag an implausible current, A."""
        if not (math.isnan(amps) or 0 <= amps <= FAR_ABOVE * self.rail.max_amps):
            self._flag("current")

    def _flag(self, kind: str) -> None:
        self._flagged += 1
        self.flags[kind] += 1
