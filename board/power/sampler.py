"""Sampler of power, which gives the energy of any window of time.

    with Power() as power:                   # the first available source, see `open_power`
        work()
    power.watts, power.joules                # of the block; None if nothing can be measured

    with open_power("rapl", rate_hz=100) as power:
        idle = power.measure_idle(5)
        start = time.monotonic(); work(); end = time.monotonic()
        power.report(start, end, frames=300, idle=idle)["joules_per_frame"]

A thread reads at a fixed rate on the monotonic clock, on which frames are timed too. Energies are
summed as readings arrive, so that the figures of a run of any length need only memory that is
allocated at the start. If nothing can be measured, every figure is None.

On a board, every reading is a transfer on a slow bus. At 50 Hz, the nine rails of a ZCU104 would
keep it busy for much of the time (an estimate: selecting, checking and reading a page of an
IRPS5401 takes about 12 bytes, 1.1 ms at 100 kHz, and waits for interrupts in between). The total
rail is therefore read with every sample, and the others in turn, each about ten times per second.
Every reading has its own time.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.board.power.figures import Idle, PowerWindow, RailFigures, figures_of, spread_of
from tutelage.board.power.meter import RailMeter
from tutelage.board.power.plausibility import Doubt
from tutelage.board.power.record import Floats, Record
from tutelage.board.power.sources.registry import open_source
from tutelage.board.power.sources.source import PowerError, PowerSource
from tutelage.core.board_profile import DEFAULT_BOARD

DEFAULT_RATE_HZ = 50.0
SYSFS = Path("/sys")
# Time for which every reading is kept; one per second is kept for a day.
_FINE_SECONDS = 600.0
# Longest interval over which power is interpolated; after a longer one, the process has slept.
_LONGEST_STEP_SECONDS = 1.0
_LONGEST_STEP_SAMPLES = 10
# Number of samples that are recorded together, unless figures are requested earlier. Cache misses
# after waking are most of the cost of a sample, and recording together shares them.
_SETTLED_TOGETHER = 25
# Rate of inspections, of one rail in turn.
_INSPECTIONS_HZ = 5.0
# Rate at which each rail but the total is read, if rails are read one by one.
_SIDE_RATE_HZ = 10.0
# A sample that has taken this share of the period reads no further rails after the total ...
_SAMPLE_SHARE = 0.5
# ... except that one sample in this many reads one in any case.
_SIDE_AT_LEAST_EVERY = 5
# Longest sleep of the sampler, after which it checks whether to end.
_SLICE_SECONDS = 0.1

Clock = Callable[[], float]
Timed = tuple[int, float, float]  # rail, reading (W or J), its time (s)
# Readings, lateness of the sample (s), samples missed so far, inspected rail (or -1), its amperes.
_Sample = tuple[list[Timed], float, int, int, float]


def open_power(
    source: str = "auto",
    board: str = DEFAULT_BOARD,
    *,
    rate_hz: float = DEFAULT_RATE_HZ,
    sysfs: Path = SYSFS,
    clock: Clock = time.monotonic,
    history_seconds: float = _FINE_SECONDS,
) -> Power:
    """Return a sampler of a source, not yet started.

        with open_power("hwmon", rate_hz=100) as power: ...

    Parameters
    ----------
    source : one of `source_names`; "auto" selects the first available one, or else a source
        without rails; "none" measures nothing
    board : profile with the board's rails
    rate_hz : samples per second
    sysfs : mount point of Linux's sysfs
    clock : function that returns the monotonic time, s
    history_seconds : time for which every reading is kept, s

    Raises
    ------
    PowerError
        The source is unknown or not available, or the rate is out of range.
    TomlError
        The board is unknown.
    """
    if not (0 < rate_hz <= 1000):
        raise PowerError(f"{rate_hz} readings per second: give a rate above 0 and up to 1000")
    return Power(open_source(source, board, sysfs), rate_hz, clock, history_seconds)


class Power:
    """Sampler of a power source in a thread; any thread may get its figures.

        with Power() as power:
            work()
        print(f"{power.watts} W, {power.joules} J")

    A ``with`` block starts the sampling, ends it, and closes the source. The figures remain
    available.

    Parameters
    ----------
    source : power source; None for the first available one, see `open_power`
    rate_hz : samples per second
    clock : function that returns the monotonic time, s
    history_seconds : time for which every reading is kept, s
    """

    def __init__(
        self,
        source: PowerSource | None = None,
        rate_hz: float = DEFAULT_RATE_HZ,
        clock: Clock = time.monotonic,
        history_seconds: float = _FINE_SECONDS,
    ):
        source = source or open_source("auto", DEFAULT_BOARD, SYSFS)
        self._source = source
        self._closed = False
        self._period = 1 / rate_hz
        self._clock = clock
        rails = range(len(source.rails))
        total = next((i for i in rails if source.rails[i].name == source.total_rail), None)
        self._total = total
        self._side = [i for i in rails if i != total] if source.one_by_one else []
        self._side_per_sample = math.ceil(len(self._side) * min(1.0, _SIDE_RATE_HZ / rate_hz))
        self._side_next = 0
        self._read_all = False  # a thread waits for a reading of every rail
        self._inspect_every = max(1, round(rate_hz / _INSPECTIONS_HZ))
        self._meters = [self._meter(i, history_seconds) for i in rails]
        # Rows of the schedule: time and lateness of a sample, numbers of samples and of missed
        # ones, and the time of its end. A source without rails needs none.
        capacity = 2 + round(history_seconds * rate_hz)
        self._schedule = Record(capacity, sums=3) if self._meters else None
        # Only the sampling thread changes these two and appends; the lock's holder removes.
        self._taken = 0
        self._missed = 0
        self._pending: deque[_Sample] = deque()
        self._samples = 0  # recorded
        self._lock = threading.Lock()  # guards the record
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._block: tuple[float, float | None] | None = None  # begin and end of a with block, s

    def _meter(self, index: int, history_seconds: float) -> RailMeter:
        side = index in self._side
        step = self._period
        if side:
            step *= math.ceil(len(self._side) / self._side_per_sample)
        longest = max(_LONGEST_STEP_SECONDS, _LONGEST_STEP_SAMPLES * step)
        rows = 2 + math.ceil(history_seconds / step)
        return RailMeter(self._source.rails[index], self._source.counts_energy, side, longest, rows)

    @property
    def source(self) -> str:
        """Name of the source; "none" if nothing is measured."""
        return self._source.name

    @property
    def reason(self) -> str:
        """One line with the rails, unavailable sources and doubts, or why nothing is measured."""
        return "; doubted: ".join([self._source.text, *(doubt.text for doubt in self.doubts())])

    @property
    def rails(self) -> tuple[str, ...]:
        """Names of the measured rails; empty if nothing is measured."""
        return tuple(rail.name for rail in self._source.rails)

    @property
    def total_rail(self) -> str | None:
        """The rail that feeds all others, such as 12V on a ZCU104; None without one."""
        return self._source.total_rail

    def doubts(self) -> list[Doubt]:
        """Return the doubts about readings so far, such as power that is not volts x amperes."""
        return self._source.doubts()

    # ---- sampling

    def start(self) -> None:
        """Take the first sample and continue in a thread. Does nothing if it runs already."""
        if self._thread is not None or not self._meters:
            return
        self._stopping = False
        origin = self._clock()
        self.sample()
        self._thread = threading.Thread(target=self._run, args=(origin,), name="power", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample and end the thread. `start` may continue the record later."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping = True
            thread.join()
            self.sample()

    def close(self) -> None:
        """Stop, and close the source."""
        self.stop()
        if not self._closed:
            self._closed = True
            self._source.close()

    def __enter__(self) -> Power:
        self.start()
        self._block = (self._clock(), None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._block is not None:
            self._block = (self._block[0], self._clock())
        self.close()

    @property
    def watts(self) -> float | None:
        """Mean power of the total rail in the ``with`` block so far, W; None if not measured."""
        total = self.block().get(self.total_rail or "")
        return total.mean_w if total else None

    @property
    def joules(self) -> float | None:
        """Energy of the total rail in the ``with`` block so far, J; None if not measured."""
        total = self.block().get(self.total_rail or "")
        return total.joules if total else None

    @property
    def seconds(self) -> float:
        """Length of the ``with`` block so far, s; 0 before it."""
        begin, end = self._block or (0.0, 0.0)
        return (self._clock() if end is None else end) - begin

    def block(self) -> dict[str, RailFigures]:
        """Return the figures of each rail in the ``with`` block so far; empty if not measured."""
        if self._block is None:
            return {}
        begin, end = self._block
        return self.energy(begin, self._clock() if end is None else end)

    def _run(self, origin: float) -> None:
        """Sample at origin + n * period, so that delays do not add up; skip missed times."""
        tick = 1
        while not self._stopping:
            due = origin + tick * self._period
            # Sleeping costs half as much as waiting for an event; short sleeps allow a quick end.
            rest = due - self._clock()
            if rest > 0:
                time.sleep(min(rest, _SLICE_SECONDS))
            if rest > _SLICE_SECONDS:
                continue
            self._sample(due, self._read_all)
            following = max(tick + 1, int((self._clock() - origin) / self._period) + 1)
            self._missed += following - tick - 1
            tick = following

    def sample(self) -> None:
        """Read all rails now, for callers without the sampling thread."""
        self._sample(None, everything=True)

    def _sample(self, due: float | None, everything: bool) -> None:
        """Take a sample that was due at a time, s; None for now."""
        begin = self._clock()
        if self._source.one_by_one:
            readings = self._read_in_turn(begin, everything)
        else:
            values = self._source.read()
            now = (begin + self._clock()) / 2  # reading sensors on a bus takes time
            readings = [(index, value, now) for index, value in enumerate(values)]
        late = max(0.0, begin - due) if due is not None else 0.0
        turn, amps = -1, math.nan
        if self._taken % self._inspect_every == 0:
            turn = self._taken // self._inspect_every % len(self._meters)
            amps = self._source.inspect(turn)
        self._taken += 1
        self._pending.append((readings, late, self._missed, turn, amps))
        if everything:
            self._read_all = False
        if everything or self._taken % _SETTLED_TOGETHER == 0:
            with self._lock:
                self._settle()

    def _settle(self) -> None:
        """Record the pending samples. The caller must hold the lock."""
        while self._pending:
            readings, late, missed, turn, amps = self._pending.popleft()
            if turn >= 0:
                self._meters[turn].check_amps(amps)
            for index, value, moment in readings:
                self._meters[index].add(value, moment)
            self._samples += 1
            moment, end = readings[0][2], readings[-1][2]
            assert self._schedule is not None
            self._schedule.append((moment, late, self._samples, missed, end))

    def _read_in_turn(self, begin: float, everything: bool) -> list[Timed]:
        """Read the total rail and some or all of the others; fewer if the bus takes too long."""
        clock, read = self._clock, self._source.read_rail
        readings: list[Timed] = []
        before = begin
        if self._total is not None:
            value = read(self._total)
            now = clock()
            readings.append((self._total, value, (before + now) / 2))
            before = now
        side = self._side
        count = len(side) if everything else self._side_per_sample
        least = self._total is None or self._taken % _SIDE_AT_LEAST_EVERY == 0
        enough = begin + _SAMPLE_SHARE * self._period
        for done in range(count):
            if before > enough and not everything and (done or not least):
                break
            index = side[self._side_next]
            self._side_next = (self._side_next + 1) % len(side)
            value = read(index)
            now = clock()
            readings.append((index, value, (before + now) / 2))
            before = now
        return readings

    # ---- figures

    def latest(self) -> dict[str, float] | None:
        """Return the last sample, W by rail, without unreadable rails; None before the first."""
        if not self._taken:
            return None
        with self._lock:
            self._settle()
            watts = [meter.watts for meter in self._meters]
        return {n: w for n, w in zip(self.rails, watts, strict=True) if math.isfinite(w)}

    def energy(self, start: float, end: float) -> dict[str, RailFigures]:
        """Return each rail's energy and power between two times of the clock, s.

        Powers are integrated with the trapezoid rule; counters of energy are subtracted. The energy
        is None if more than 5 % of the window has no readings.

        `error_joules` is a bound of the known errors: one step of the readings' resolution for the
        whole window (rounding does not average out if the power is constant, and whether a chip
        rounds or truncates is not documented), the sensor's relative error, the energy that its lag
        may move across the window's ends, and the whole energy of intervals without a plausible
        reading, which are filled with the rail's mean. For rails that are read in turn, half of
        each change between two readings is added, as if the power had jumped right after the first
        or right before the second. Changes that are too fast for the sensors and the sampling, and
        undocumented calibration errors of sensors, are not included.

        Windows that begin up to ten minutes before the last sample are exact to the reading, and
        older ones (up to a day) to the second.
        """
        return self._figures(self._window(start, end))

    def report(
        self, start: float, end: float, frames: int, idle: dict[str, Idle] | None = None
    ) -> dict[str, Any]:
        """Return the figures of a run between two times of the clock, for JSON.

        Parameters
        ----------
        start, end : the window, s
        frames : number of frames processed in it
        idle : result of `measure_idle`, for the energy above idle

        Returns
        -------
        dict[str, Any]
            source, reason, total_rail; rails (name -> `RailFigures` as dict); doubts (rail and
            text, see `doubts`); watts, joules and error_joules of the total rail;
            joules_per_frame, joules_per_frame_above_idle; samples, achieved rate_hz; jitter_ms, the
            delay of samples (p50 and p99 of those kept, max of all); missed, the number of samples
            skipped because the previous one took too long. Figures that were not measured are None.
        """
        window = self._window(start, end)
        rails = self._figures(window)
        doubts = [doubt._asdict() for doubt in self.doubts()]
        total = rails.get(self.total_rail) if self.total_rail else None
        joules = total.joules if total else None
        rest = idle.get(self.total_rail) if idle and self.total_rail else None
        above = joules - rest.mean_w * (end - start) if rest and joules is not None else None
        return {
            "source": self.source,
            "reason": self.reason,
            "rails": {name: asdict(figures) for name, figures in rails.items()},
            "total_rail": self.total_rail,
            "doubts": doubts or None,
            "watts": total.mean_w if total else None,
            "joules": joules,
            "error_joules": total.error_joules if total else None,
            "joules_per_frame": joules / frames if joules is not None and frames else None,
            "joules_per_frame_above_idle": above / frames if above is not None and frames else None,
            **window.schedule(),
        }

    def measure_idle(self, seconds: float) -> dict[str, Idle]:
        """Sample for `seconds` while nothing runs; return mean and spread of each rail, W.

        Rails without a plausible reading are left out. Without a source the result is empty.
        """
        if not self._meters or not seconds > 0:
            return {}
        started_here = self._thread is None
        self.start()
        start = self._clock()
        time.sleep(seconds)
        end = self._clock()
        window = self._window(start, end)
        if started_here:
            self.stop()
        return {
            name: Idle(rail.mean_w, spread_of(window.rails[index]))
            for index, (name, rail) in enumerate(self._figures(window).items())
            if rail.mean_w is not None
        }

    def flags(self) -> dict[str, dict[str, int]]:
        """Return the number of unreadable and implausible readings, and implausible currents.

        The FMC rail of a ZCU104 reports an absurd current if nothing is plugged in.
        """
        with self._lock:
            self._settle()
            return {meter.rail.name: dict(meter.flags) for meter in self._meters}

    def rows(
        self, start: float = -math.inf, end: float = math.inf
    ) -> tuple[tuple[str, ...], Floats]:
        """Return the samples between two times of the clock (s, inclusive) that are still kept.

        The cost depends on the length of the window only. Rails that are read in turn repeat their
        last reading until the next one.

        Returns
        -------
        tuple[tuple[str, ...], Floats]
            Names of the columns, "time_s" and the rails; float64 (samples, columns), oldest first,
            W, NaN without a plausible reading
        """
        names = ("time_s", *self.rails)
        if self._schedule is None:
            return names, np.zeros((0, len(names)))
        with self._lock:
            self._settle()
            times, _, _, _, ends = self._schedule.rows(start, end, slice(None)).T
            last = ends[-1] if len(ends) else -math.inf
            series = [meter.record.rows(start, last, slice(2), before=1) for meter in self._meters]
        table = np.full((len(times), len(names)), math.nan)
        table[:, 0] = times
        for column, readings in enumerate(series, 1):
            found = np.searchsorted(readings[:, 0], ends, side="right") - 1
            known = found >= 0
            table[known, column] = readings[found[known], 1]
        return names, table

    def _window(self, start: float, end: float) -> PowerWindow:
        """Return the records of a window, after waiting for readings of all rails after its end."""
        # Polled, since a notification for each sample would cost more.
        patience = self._clock() + max(0.5, 3 * self._period)  # the end may be in the future
        while self._thread and self._known_until() < end and self._clock() < patience:
            self._read_all = True
            time.sleep(min(self._period / 4, _SLICE_SECONDS))
        if self._schedule is None:
            return PowerWindow(max(0.0, end - start), None, [])
        with self._lock:
            self._settle()
            schedule = self._schedule.span(start, end)
            rails = [meter.record.span(start, end) for meter in self._meters]
        return PowerWindow(max(0.0, end - start), schedule, rails)

    def _known_until(self) -> float:
        """Return the time up to which every rail has been read."""
        with self._lock:
            self._settle()
            return min(meter.time for meter in self._meters)

    def _figures(self, window: PowerWindow) -> dict[str, RailFigures]:
        pairs = zip(self._source.rails, window.rails, strict=True)
        return {rail.name: figures_of(rail, span, window.seconds) for rail, span in pairs}
