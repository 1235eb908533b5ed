"""One rail's energy, summed up reading by reading."""

from __future__ import annotations

import math

from tutelage.board.power.plausibility import FAR_ABOVE
from tutelage.board.power.record import Record
from tutelage.board.power.sources.source import Rail


class RailMeter:
    """Sums up one rail's energy, reading by reading.

    Attributes
    ----------
    record : what is known of the past; its rows' value is the power, W, its sums see `add`
    time : when the last reading was taken, s
    watts : the last reading, NaN where it was not believable
    flags : readings that were not believable, by kind
    """

    __slots__ = (
        "_counts", "_dark", "_flagged", "_joules", "_last", "_least", "_limit", "_longest",
        "_readings", "_side", "_unseen", "flags", "rail", "record", "time", "watts",
    )  # fmt: skip

    def __init__(self, rail: Rail, counts_energy: bool, side: bool, longest: float, rows: int):
        """Allocate memory.

        Parameters
        ----------
        counts_energy : readings are J since some time instead of W
        side : it is read in turn with others
        longest : between two readings that lie further apart nothing is known, s
        rows : so many readings are kept
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
        """Take a reading, W or (of a counter) J, of a time that lies after the one before, s.

        The sums that are recorded: energy over all steps between two believable readings, J; the
        other steps' time, s; readings that were not believable; energy that may have gone unseen
        between two readings in turn, J: the power is taken to stay between them; all readings.
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
            # Counters know their energy however long nobody looked.
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
        if not (math.isnan(amps) or 0 <= amps <= FAR_ABOVE * self.rail.max_amps):
            self._flag("current")

    def _flag(self, kind: str) -> None:
        self._flagged += 1
        self.flags[kind] += 1
