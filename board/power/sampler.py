"""How much power the board takes, and how much energy a stretch of time cost.

    power = open_power()                     # pmbus, hwmon, rapl, nvml, in this order
    power.start()
    idle = power.measure_idle(5)
    start = time.monotonic(); ...; end = time.monotonic()
    power.report(start, end, frames=300, idle=idle)["joules_per_frame"]
    power.close()

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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.board.power.plausibility import FAR_ABOVE, Doubt
from tutelage.board.power.record import Floats, Record, Span
from tutelage.board.power.sources.rails import (
    PowerError,
    Rail,
    Source,
    open_hwmon,
    open_nvml,
    open_pmbus,
)
from tutelage.board.power.sources.rapl import open_rapl
from tutelage.core.board_profile import DEFAULT_BOARD, load_profile

__all__ = ["Idle", "Power", "PowerError", "RailFigures", "SOURCES", "open_power"]

DEFAULT_RATE_HZ = 50.0
SYSFS = Path("/sys")
# For how long every reading is kept; one per second is for a day.
_FINE_SECONDS = 600.0
# Between two readings that lie further apart nothing is known of the power: the process slept.
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
# How much of a window may be without readings before its energy counts as not measured.
_MAX_DARK_SHARE = 0.05

_OPENERS = {"pmbus": open_pmbus, "hwmon": open_hwmon, "rapl": open_rapl, "nvml": open_nvml}
SOURCES = ("auto", *_OPENERS, "none")

Clock = Callable[[], float]
Timed = tuple[int, float, float]  # rail, reading (W or J), its time, s
# Readings, how late the sample was (s), samples missed so far, the rail inspected (or -1), its A.
_Sample = tuple[list[Timed], float, int, int, float]


@dataclass(frozen=True)
class RailFigures:
    """What one rail did within a window of time; None where it was not measured.

    Attributes
    ----------
    mean_w, max_w : mean power and highest reading, W
    joules : energy, J
    error_joules : what is known to be uncertain about it, J, see `Power.energy`
    flagged : readings of power or current that were missing or nonsense
    rate_hz : readings per second that all this rests on
    """

    mean_w: float | None
    max_w: float | None
    joules: float | None
    error_joules: float | None
    flagged: int
    rate_hz: float | None = None


@dataclass(frozen=True)
class Idle:
    """A rail at rest: mean power and the readings' standard deviation, W."""

    mean_w: float
    spread_w: float


def open_power(
    source: str = "auto",
    board: str = DEFAULT_BOARD,
    *,
    rate_hz: float = DEFAULT_RATE_HZ,
    sysfs: Path = SYSFS,
    clock: Clock = time.monotonic,
    history_seconds: float = _FINE_SECONDS,
) -> Power:
    """Return a sampler, not yet started.

    Parameters
    ----------
    source : one of `SOURCES`; "auto" takes the first that is there, or "none" with the reasons
    board : profile that names the board's rails
    rate_hz : samples per second
    sysfs : where Linux's class directories lie
    clock : monotonic time, s
    history_seconds : for how long every reading is kept

    Raises
    ------
    PowerError
        The named source is not there.
    TomlError
        There is no such board.
    """
    if source not in SOURCES:
        raise PowerError(f"no power source {source!r}, but {', '.join(SOURCES)}")
    if not (0 < rate_hz <= 1000):
        raise PowerError(f"{rate_hz} readings per second: must be above 0 and at most 1000")
    found = _find_source(source, board, sysfs)
    return Power(found, rate_hz, clock, history_seconds)


def _find_source(name: str, board: str, sysfs: Path) -> Source:
    if name == "none":
        return Source("power is not measured: switched off")
    profile = load_profile(board)
    if name != "auto":
        try:
            return _OPENERS[name](profile, sysfs)
        except PowerError as error:
            raise PowerError(f"power source {name}: {error}") from error
    absent = []
    for candidate, opener in _OPENERS.items():
        try:
            source = opener(profile, sysfs)
        except PowerError as error:
            absent.append(f"{candidate}: {error}")
            continue
        if absent:
            source.text += f" (not taken: {'; '.join(absent)})"
        return source
    return Source(f"power is not measured: {'; '.join(absent)}")


class Power:
    """Samples a source and tells power and energy; the figures may be asked for by any thread."""

    def __init__(
        self,
        source: Source,
        rate_hz: float = DEFAULT_RATE_HZ,
        clock: Clock = time.monotonic,
        history_seconds: float = _FINE_SECONDS,
    ):
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

    def _meter(self, index: int, history_seconds: float) -> _Meter:
        side = index in self._side
        step = self._period
        if side:
            step *= math.ceil(len(self._side) / self._side_per_sample)
        longest = max(_LONGEST_STEP_SECONDS, _LONGEST_STEP_SAMPLES * step)
        rows = 2 + math.ceil(history_seconds / step)
        return _Meter(self._source.rails[index], self._source.counts_energy, side, longest, rows)

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
        """Read all rails now; for who passes a clock of his own. The thread reads by itself."""
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
            name: Idle(rail.mean_w, _spread(window.rails[index]))
            for index, (name, rail) in enumerate(self._figures(window).items())
            if rail.mean_w is not None
        }

    def flags(self) -> dict[str, dict[str, int]]:
        """Return for each rail how often it was unreadable, implausible, its current implausible.

        The FMC rail of a ZCU104 tells an absurd current when nothing is plugged in.
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

    def _window(self, start: float, end: float) -> _Window:
        """Look up a window, after readings of all rails that follow on its end, or soon would."""
        # Polled, for a sampler that tells of each sample would cost more, with nobody listening.
        patience = self._clock() + max(0.5, 3 * self._period)  # an end may lie in the future
        while self._thread and self._known_until() < end and self._clock() < patience:
            self._read_all = True
            time.sleep(min(self._period / 4, _SLICE_SECONDS))
        if self._schedule is None:
            return _Window(max(0.0, end - start), None, [])
        with self._lock:
            self._settle()
            schedule = self._schedule.span(start, end)
            rails = [meter.record.span(start, end) for meter in self._meters]
        return _Window(max(0.0, end - start), schedule, rails)

    def _known_until(self) -> float:
        """Return the time up to which every rail has been read."""
        with self._lock:
            self._settle()
            return min(meter.time for meter in self._meters)

    def _figures(self, window: _Window) -> dict[str, RailFigures]:
        pairs = zip(self._source.rails, window.rails, strict=True)
        return {rail.name: _figures(rail, span, window.seconds) for rail, span in pairs}


# ---- one rail -----------------------------------------------------------------------------------


class _Meter:
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


# ---- a window of time ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Window:
    """What is known of so many seconds: of the schedule and of each rail, None where nothing is."""

    seconds: float
    sampling: Span | None
    rails: list[Span | None]

    def schedule(self) -> dict[str, Any]:
        """Return how well the sampler kept its times, all None where it took no sample."""
        span = self.sampling
        grown, missed = span.sums[:2] if span else (0.0, 0.0)
        samples = len(span.values) if span and span.complete else round(grown)
        if span is None or not samples:
            return {"samples": None, "rate_hz": None, "jitter_ms": None, "missed": None}
        late = span.values if len(span.values) else np.array([span.highest])
        p50, p99 = np.percentile(late, (50, 99)) * 1e3
        return {
            "samples": samples,
            "rate_hz": _per_second(grown, span),
            "jitter_ms": {"p50": float(p50), "p99": float(p99), "max": span.highest * 1e3},
            "missed": round(missed),
        }


def _figures(rail: Rail, span: Span | None, seconds: float) -> RailFigures:
    """Return a rail's figures in a window; the error bar is explained at `Power.energy`."""
    if span is None:
        return RailFigures(None, None, None, None, 0)
    joules, dark, flagged, _, readings = span.sums
    dark += seconds - (span.last - span.first)
    flags, rate = round(flagged), _per_second(readings, span)
    known = seconds - dark
    max_w = span.highest if math.isfinite(span.highest) else None
    if not known > 1e-9:  # not even one step between two readings
        return RailFigures(None, max_w, None, None, flags, rate)
    mean = joules / known
    if dark > _MAX_DARK_SHARE * seconds:
        return RailFigures(mean, max_w, None, None, flags, rate)
    filled = mean * dark
    error = (
        rail.step_watts * known
        + rail.relative_error * joules
        + 2 * rail.lag_seconds * mean
        + span.whole_steps[3]  # unseen between two readings in turn
        + filled
    )
    return RailFigures(mean, max_w, joules + filled, error, flags, rate)


def _per_second(count: float, span: Span) -> float:
    return count / (span.last - span.first) if span.last > span.first else 0.0


def _spread(span: Span | None) -> float:
    """Return the standard deviation of the readings that there are."""
    known = span.values[np.isfinite(span.values)] if span else ()
    return float(np.std(known)) if len(known) else 0.0
