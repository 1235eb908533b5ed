"""How much power the board takes, and how much energy a stretch of time cost.

    with Power() as power:                   # the first source that is there, see `open_power`
        work()
    power.watts, power.joules                # of the block; None where nothing can be measured

    with open_power("rapl", rate_hz=100) as power:
        idle = power.measure_idle(5)
        start = time.monotonic(); work(); end = time.monotonic()
        power.report(start, end, frames=300, idle=idle)["joules_per_frame"]

A thread reads at a fixed rate on the monotonic clock, on which frames are timed too. Energies are
summed up as readings come in, so that a run of any length keeps its figures in memory that was
allocated before it began. Where nothing can be measured every figure is None.

On a board every reading is a transfer on a slow bus: at 50 Hz nine rails of a ZCU104 would keep it
busy for a large part of the time (estimated, not measured: a page of an IRPS5401 is selected,
checked and read in some 12 bytes, 1.1 ms at 100 kHz, and waits for interrupts in between). So the
total rail is read with every sample, the others in turn, each about ten times per second. Every
reading has its own time.
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
# For how long every reading is kept; one per second is for a day.
_FINE_SECONDS = 600.0
# Between two readings further apart than this nothing is known of the power: the process slept.
_LONGEST_STEP_SECONDS = 1.0
_LONGEST_STEP_SAMPLES = 10
# So many samples are recorded at once, if nobody asks before: code and data that are used together
# are fetched into the caches once, and waking to cold caches is most of what a sample costs.
_SETTLED_TOGETHER = 25
# How often one rail in turn is inspected.
_INSPECTIONS_HZ = 5.0
# How often each rail but the total is read where rails are read one by one.
_SIDE_RATE_HZ = 10.0
# When a sample took that share of the period it reads no further rails but the total ...
_SAMPLE_SHARE = 0.5
# ... except that every so many samples read one in any case.
_SIDE_AT_LEAST_EVERY = 5
# The sampler looks this often whether it should end.
_SLICE_SECONDS = 0.1

Clock = Callable[[], float]
Timed = tuple[int, float, float]  # rail, reading (W or J), its time, s
# Readings, how late the sample was (s), samples missed so far, the rail inspected (or -1), its A.
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
    """Return a sampler of a source that is named, not yet started.

        with open_power("hwmon", rate_hz=100) as power: ...

    Parameters
    ----------
    source : one of `source_names`; "auto" takes the first that is there, or "none" with the reasons
    board : profile that names the board's rails
    rate_hz : samples per second
    sysfs : where Linux's class directories are
    clock : monotonic time, s
    history_seconds : for how long every reading is kept

    Raises
    ------
    PowerError
        The named source is not there.
    TomlError
        There is no such board.
    """
    if not (0 < rate_hz <= 1000):
        raise PowerError(f"{rate_hz} readings per second: must be above 0 and at most 1000")
    return Power(open_source(source, board, sysfs), rate_hz, clock, history_seconds)


class Power:
    """Samples a power source in a thread and gives power and energy, to any thread.

        with Power() as power:
            work()
        print(f"{power.watts} W, {power.joules} J")

    A ``with`` block starts the sampling, and ends it and closes the source; the figures remain.

    Parameters
    ----------
    source : what is read; None for the first that is there, see `open_power`
    rate_hz : samples per second
    clock : monotonic time, s
    history_seconds : for how long every reading is kept
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
        self._read_all = False  # somebody waits for a reading of every rail
        self._inspect_every = max(1, round(rate_hz / _INSPECTIONS_HZ))
        self._meters = [self._meter(i, history_seconds) for i in rails]
        # The schedule's rows: time, how late the sample was; counts of samples and of missed ones,
        # and the time at which it ended. Nothing is allocated for a source without rails.
        capacity = 2 + round(history_seconds * rate_hz)
        self._schedule = Record(capacity, sums=3) if self._meters else None
        # Only the thread changes these two, and appends; who holds the lock takes away and records.
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
        """Name of the source, "none" where nothing is measured."""
        return self._source.name

    @property
    def reason(self) -> str:
        """One line: what is measured, what was tried before and what is doubted, or why not."""
        return "; doubted: ".join([self._source.text, *(doubt.text for doubt in self.doubts())])

    @property
    def rails(self) -> tuple[str, ...]:
        return tuple(rail.name for rail in self._source.rails)

    @property
    def total_rail(self) -> str | None:
        """The rail that holds all others: 12V on a ZCU104. Rails are never summed with it."""
        return self._source.total_rail

    def doubts(self) -> list[Doubt]:
        """Return what speaks against readings so far: power beside volts, amperes and idle."""
        return self._source.doubts()

    # ---- sampling

    def start(self) -> None:
        """Take the first sample and go on in a thread; does nothing while it runs."""
        if self._thread is not None or not self._meters:
            return
        self._stopping = False
        origin = self._clock()
        self.sample()
        self._thread = threading.Thread(target=self._run, args=(origin,), name="power", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample and end the thread; the figures stay, `start` goes on with them."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping = True
            thread.join()
            self.sample()

    def close(self) -> None:
        """Stop and release the source's files."""
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
        """Sample at origin + n * period, so that no delay adds up; skip what is already past."""
        tick = 1
        while not self._stopping:
            due = origin + tick * self._period
            # Sleeping costs half of what waiting for an event does; so slices, to end soon.
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
        """Read all rails now; for callers with a clock of their own. The thread reads by itself."""
        self._sample(None, everything=True)

    def _sample(self, due: float | None, everything: bool) -> None:
        """Take a sample that was meant to begin at `due`, s; by default now."""
        begin = self._clock()
        if self._source.one_by_one:
            readings = self._read_in_turn(begin, everything)
        else:
            values = self._source.read()
            now = (begin + self._clock()) / 2  # sensors behind a bus take their time
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
        """Enter the samples that wait for it into the record, under the lock."""
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
        """Read the total and some other rails, or all; fewer where the bus takes too long."""
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
        """Return the last sample, W per rail that could be read; None before the first one."""
        if not self._taken:
            return None
        with self._lock:
            self._settle()
            watts = [meter.watts for meter in self._meters]
        return {n: w for n, w in zip(self.rails, watts, strict=True) if math.isfinite(w)}

    def energy(self, start: float, end: float) -> dict[str, RailFigures]:
        """Return each rail's energy and power between two times of the clock.

        Powers are integrated by the trapezoid rule; counters of energy are subtracted. Energy is
        None where more than 5 % of the window is without readings.

        The error bar is a bound for what is known: one step of the readings' resolution all the
        time (their rounding does not average out where the power is steady, and whether a chip
        rounds or truncates is not documented), the sensor's own relative error, what its lag may
        move across the window's ends, and the whole energy of stretches without a believable
        reading, which are filled with the rail's mean. For rails that are read in turn, half of
        each change between two readings is added, as if the power had jumped right after the one
        or right before the other. What changes faster than sensors and sampling follow, and the
        calibration of sensors whose makers do not tell it, is not in it.

        Windows that begin up to ten minutes before the last sample are exact to the reading, older
        ones (up to a day) to the second.
        """
        return self._figures(self._window(start, end))

    def report(
        self, start: float, end: float, frames: int, idle: dict[str, Idle] | None = None
    ) -> dict[str, Any]:
        """Return the figures of a run between two times of the clock, for JSON.

        Parameters
        ----------
        start, end : the window, s
        frames : what was worked off in it
        idle : `measure_idle`'s, for the energy above it

        Returns
        -------
        source, reason, total_rail; rails (name -> `RailFigures` as dict); doubts (rail and text,
        see `doubts`); watts, joules and error_joules of the total rail; joules_per_frame,
        joules_per_frame_above_idle; samples, rate_hz as achieved; jitter_ms: how late samples began
        (p50 and p99 of those kept, max of all); missed: samples left out because the one before
        took too long. What was not measured, or found, is None.
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
        """Sample for `seconds` while nothing runs; return mean and spread of each rail.

        Rails without a believable reading are left out; nothing is measured without a source.
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
        """Return for each rail how often it was unreadable, implausible, its current implausible.

        The FMC rail of a ZCU104 reports an absurd current when nothing is plugged in.
        """
        with self._lock:
            self._settle()
            return {meter.rail.name: dict(meter.flags) for meter in self._meters}

    def rows(
        self, start: float = -math.inf, end: float = math.inf
    ) -> tuple[tuple[str, ...], Floats]:
        """Return the samples between two times of the clock (inclusive), as far as they are kept.

        The time and cost of this grow with that window only. Rails that are read in turn keep
        their last reading until the next one.

        Returns
        -------
        names of the columns, "time_s" (the clock's) and the rails; float64, samples × columns,
        oldest first, W, NaN where there was no believable reading
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
        """Look up a window, after readings of all rails that follow on its end, or soon would."""
        # Polled: a sampler that notifies of each sample would cost more, with nobody listening.
        patience = self._clock() + max(0.5, 3 * self._period)  # an end may lie in the future
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
