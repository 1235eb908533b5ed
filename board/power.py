"""How much power the board takes, and how much energy a stretch of time cost.

    power = open_power()                     # pmbus, hwmon, rapl, nvml, in this order
    power.start()
    idle = power.measure_idle(5)
    start = time.monotonic(); ...; end = time.monotonic()
    power.report(start, end, frames=300, idle=idle)["joules_per_frame"]
    power.close()

A thread reads all rails at a fixed rate on the monotonic clock, on which frames are timed too.
Energies are summed up as readings come in, so that a run of any length keeps its figures in
memory that was allocated before it began. Where nothing can be measured every figure is None.
"""

from __future__ import annotations

import math
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from board.power_sources import (
    PowerError,
    Rail,
    Source,
    open_hwmon,
    open_nvml,
    open_pmbus,
    open_rapl,
)
from board.profile import DEFAULT_BOARD, load_profile

__all__ = ["Idle", "Power", "PowerError", "RailFigures", "SOURCES", "open_power"]

DEFAULT_RATE_HZ = 50.0
SYSFS = Path("/sys")
# Every sample is kept for ten minutes, one per second for a day.
_FINE_SECONDS = 600.0
_COARSE_SECONDS = 86_400.0
_COARSE_STEP_SECONDS = 1.0
# A reading is nonsense beyond this many times the most that the rail can carry.
_FAR_ABOVE = 1.5
# Between two readings that lie further apart nothing is known of the power: the process slept.
_LONGEST_STEP_SECONDS = 1.0
_LONGEST_STEP_SAMPLES = 10
# How many samples share the reading of one rail's current.
_AMPS_EVERY = 5
# The sampler looks this often whether it should end.
_SLICE_SECONDS = 0.1
# How much of a window may be without readings before its energy counts as not measured.
_MAX_DARK_SHARE = 0.05

_OPENERS = {"pmbus": open_pmbus, "hwmon": open_hwmon, "rapl": open_rapl, "nvml": open_nvml}
SOURCES = ("auto", *_OPENERS, "none")

Clock = Callable[[], float]
Floats = np.ndarray


@dataclass(frozen=True)
class RailFigures:
    """What one rail did within a window of time; None where it was not measured.

    Attributes
    ----------
    mean_w, max_w : mean power and highest reading, W
    joules : energy, J
    error_joules : what is known to be uncertain about it, J, see `Power.energy`
    flagged : readings of power or current that were missing or nonsense
    """

    mean_w: float | None
    max_w: float | None
    joules: float | None
    error_joules: float | None
    flagged: int


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
    rate_hz : readings per second
    sysfs : where Linux's class directories lie
    clock : monotonic time, s
    history_seconds : for how long every sample is kept

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
        longest = max(_LONGEST_STEP_SECONDS, _LONGEST_STEP_SAMPLES * self._period)
        self._meters = [_Meter(rail, source.counts_energy, longest) for rail in source.rails]
        # Nothing is allocated for a source without rails.
        fine = 2 + round(history_seconds * rate_hz) if self._meters else 0
        coarse = round(_COARSE_SECONDS / _COARSE_STEP_SECONDS) if self._meters else 0
        self._history = _Record(len(self._meters), fine, coarse, smooth=not source.counts_energy)
        self._samples = 0
        self._missed = 0
        self._last_time = math.nan
        self._lock = threading.Lock()  # guards everything that a sample changes
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def source(self) -> str:
        """Name of the source, "none" where nothing is measured."""
        return self._source.name

    @property
    def reason(self) -> str:
        """One line: what is measured and what was tried before, or why nothing is."""
        return self._source.text

    @property
    def rails(self) -> tuple[str, ...]:
        return tuple(rail.name for rail in self._source.rails)

    @property
    def total_rail(self) -> str | None:
        """The rail that holds all others: 12V on a ZCU104. Rails are never summed with it."""
        return self._source.total_rail

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
            self.sample(due)
            following = max(tick + 1, int((self._clock() - origin) / self._period) + 1)
            self._missed += following - tick - 1
            tick = following

    def sample(self, due: float | None = None) -> None:
        """Read all rails now; the thread does this, and who passes a clock of his own.

        Parameters
        ----------
        due : when this sample was meant to begin, s; by default now
        """
        begin = self._clock()
        values = self._source.read()
        now = (begin + self._clock()) / 2  # sensors behind I2C take their time
        # Currents only tell nonsense: one rail's in turn, and not with every sample.
        turn, rest = divmod(self._samples, _AMPS_EVERY)
        turn %= len(self._meters)
        amps = math.nan if rest else self._source.read_amps(turn)
        with self._lock:
            seconds = now - self._last_time if self._samples else 0.0
            self._last_time = now
            self._samples += 1
            self._meters[turn].check_amps(amps)
            late = max(0.0, begin - due) if due is not None else 0.0
            row = [now, late, self._samples, self._missed]
            for meter, value in zip(self._meters, values, strict=True):
                row += meter.add(value, seconds)
            self._history.append(row, self._meters)

    # ---- figures

    def latest(self) -> dict[str, float] | None:
        """Return the last sample, W per rail that could be read; None before the first one."""
        if not self._samples:
            return None
        with self._lock:
            watts = [meter.watts for meter in self._meters]
        return {n: w for n, w in zip(self.rails, watts, strict=True) if math.isfinite(w)}

    def energy(self, start: float, end: float) -> dict[str, RailFigures]:
        """Return each rail's energy and power between two times of the clock.

        Powers are integrated by the trapezoid rule; counters of energy are subtracted. The error
        bar is a bound for what is known: one step of the readings' resolution all the time (their
        rounding does not average out where the power is steady, and whether a chip rounds or
        truncates is not documented), the sensor's own relative error, what its lag may move
        across the window's ends, and the whole energy of stretches without a believable reading,
        which are filled with the rail's mean. What changes faster than sensors and sampling
        follow, and the calibration of sensors whose makers do not tell it, is not in it. Energy
        is None where more than 5 % of the window is without readings.

        Windows that begin up to ten minutes before the last sample are exact to the sample, older
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
        source, reason, total_rail; rails (name -> `RailFigures` as dict); watts, joules and
        error_joules of the total rail; joules_per_frame, joules_per_frame_above_idle; samples,
        rate_hz as achieved; jitter_ms: how late samples began (p50 and p99 of those kept, max of
        all); missed: samples left out because the one before took too long. What was not
        measured is None.
        """
        window = self._window(start, end)
        rails = self._figures(window)
        total = rails.get(self.total_rail) if self.total_rail else None
        joules = total.joules if total else None
        rest = idle.get(self.total_rail) if idle and self.total_rail else None
        above = joules - rest.mean_w * (end - start) if rest and joules is not None else None
        return {
            "source": self.source,
            "reason": self.reason,
            "rails": {name: asdict(figures) for name, figures in rails.items()},
            "total_rail": self.total_rail,
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
            name: Idle(rail.mean_w, _spread(window.watts[:, index]))
            for index, (name, rail) in enumerate(self._figures(window).items())
            if rail.mean_w is not None
        }

    def flags(self) -> dict[str, dict[str, int]]:
        """Return for each rail how often it was unreadable, implausible, its current implausible.

        The FMC rail of a ZCU104 tells an absurd current when nothing is plugged in.
        """
        with self._lock:
            return {meter.rail.name: dict(meter.flags) for meter in self._meters}

    def rows(self) -> tuple[tuple[str, ...], Floats]:
        """Return the samples that are kept, oldest first.

        Returns
        -------
        names of the columns, "time_s" (the clock's) and the rails; float64, samples × columns,
        W, NaN where there was no believable reading
        """
        with self._lock:
            return ("time_s", *self.rails), self._history.samples()

    def _window(self, start: float, end: float) -> _Window:
        """Look up a window, after the thread's next sample where it ends after the last one."""
        # Polled, for a sampler that tells of each sample would cost more, with nobody listening.
        patience = self._clock() + max(0.5, 3 * self._period)  # an end may lie in the future
        while self._thread and self._last_time < end and self._clock() < patience:
            time.sleep(min(self._period / 4, _SLICE_SECONDS))
        with self._lock:
            return self._history.window(start, end)

    def _figures(self, window: _Window) -> dict[str, RailFigures]:
        rails = self._source.rails
        return {rail.name: _figures(rail, window, i) for i, rail in enumerate(rails)}


# ---- one rail -----------------------------------------------------------------------------------


class _Meter:
    """Sums up one rail's energy, reading by reading.

    Attributes
    ----------
    watts : the last reading, NaN where it was not believable
    peak : the highest since somebody set it to NaN, W
    joules : energy over all steps between two believable readings, J
    dark_seconds : the other steps' time, s
    flagged : readings that were not believable
    """

    __slots__ = (
        "_counts", "_last", "_limit", "_longest", "dark_seconds", "flagged", "flags", "joules",
        "peak",
        "rail", "watts",
    )  # fmt: skip

    def __init__(self, rail: Rail, counts_energy: bool, longest: float):
        self.rail = rail
        self.flags = {"unreadable": 0, "implausible": 0, "current": 0}
        self.flagged = 0
        self.watts = self.peak = math.nan
        self.joules = 0.0
        self.dark_seconds = 0.0
        self._counts = counts_energy
        self._limit = _FAR_ABOVE * rail.max_watts
        self._longest = longest
        self._last = math.nan  # the last reading, W or J

    def add(self, value: float, seconds: float) -> tuple[float, float, float, float]:
        """Take a reading, W or (of a counter) J, `seconds` after the one before.

        Returns
        -------
        watts, joules, dark_seconds, flagged
        """
        last, self._last = self._last, value
        if self._counts:
            energy = value - last
            watts = energy / seconds if seconds > 0 else math.nan
        else:
            energy = (last + value) / 2 * seconds
            watts = value
        if 0 <= watts <= self._limit:
            self.watts = watts
            if not self.peak >= watts:  # NaN counts as lower
                self.peak = watts
            # Counters know their energy however long nobody looked.
            if math.isfinite(energy) and (self._counts or seconds <= self._longest):
                self.joules += energy
            else:
                self.dark_seconds += seconds
        else:
            self._reject(value, watts, seconds)
        return self.watts, self.joules, self.dark_seconds, self.flagged

    def _reject(self, value: float, watts: float, seconds: float) -> None:
        self.watts = math.nan
        self.dark_seconds += seconds
        if not math.isfinite(value):
            self._flag("unreadable")
        elif not math.isnan(watts):  # a counter's first reading has no power yet
            self._flag("implausible")
        if not self._counts:
            self._last = math.nan

    def check_amps(self, amps: float) -> None:
        if not (math.isnan(amps) or 0 <= amps <= _FAR_ABOVE * self.rail.max_amps):
            self._flag("current")

    def _flag(self, kind: str) -> None:
        self.flagged += 1
        self.flags[kind] += 1


# ---- what is kept -------------------------------------------------------------------------------

# A row holds the time, how late the sample was, two running counts, and of each rail what its meter
# returns: power, and running energy, time without readings and count of flags.
_TIME, _LATE, _SAMPLES, _MISSED, _RAILS = range(5)
_PER_RAIL = 4
_WATTS, _JOULES, _DARK, _FLAGGED = (slice(_RAILS + part, None, _PER_RAIL) for part in range(4))


@dataclass(frozen=True)
class _Window:
    """What a record knows of the time between start and end.

    Attributes
    ----------
    seconds : its length, s
    samples, missed : samples that fell into it, and that were left out
    rate : samples per second of the part that the record holds
    joules, dark, flagged : for each rail energy, time without readings, flags
    peaks : highest reading of each rail, NaN where there is none
    watts, late : each sample that is kept: readings, samples × rails, W; lateness, s
    latest : the greatest lateness, s
    """

    seconds: float
    samples: int
    rate: float
    missed: int
    joules: Floats
    dark: Floats
    flagged: Floats
    peaks: Floats
    watts: Floats
    late: Floats
    latest: float

    def schedule(self) -> dict[str, Any]:
        """Return how well the sampler kept its times, all None where it took no sample."""
        if not self.samples:
            return {"samples": None, "rate_hz": None, "jitter_ms": None, "missed": None}
        late = self.late if len(self.late) else np.array([self.latest])
        p50, p99 = np.percentile(late, (50, 99)) * 1e3
        return {
            "samples": self.samples,
            "rate_hz": self.rate,
            "jitter_ms": {"p50": float(p50), "p99": float(p99), "max": self.latest * 1e3},
            "missed": self.missed,
        }


class _Ring:
    """The last rows of a table, in memory that is allocated once."""

    def __init__(self, capacity: int, columns: int):
        self._rows = np.zeros((max(1, capacity), columns))  # pages are taken as they are written
        self._bytes = self._rows.data.cast("B")
        self._format = struct.Struct(f"{columns}d")  # a third of the time of numpy's assignment
        self._count = 0

    def append(self, row: list[float]) -> None:
        place = self._count % len(self._rows)
        self._format.pack_into(self._bytes, place * self._format.size, *row)
        self._count += 1

    def __len__(self) -> int:
        return min(self._count, len(self._rows))

    def row(self, index: int) -> Floats:
        """Return a row, 0 the oldest."""
        return self._rows[self._place(index)]

    def position(self, moment: float) -> int:
        """Return how many rows are at or before a time, by bisection."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.row(middle)[_TIME] <= moment:
                low = middle + 1
            else:
                high = middle
        return low

    def rows(self, first: int, last: int, columns: list[int]) -> Floats:
        """Return a copy of some columns of the rows first..last-1, in order."""
        places = self._place(np.arange(first, max(first, last)))
        return self._rows[places[:, None], columns]

    def _place(self, index: Any) -> Any:
        oldest = self._count - len(self)
        return (oldest + index) % len(self._rows)


class _Record:
    """Every sample of the last minutes, and one per second of the last day."""

    def __init__(self, rails: int, fine: int, coarse: int, smooth: bool):
        """`smooth`: power is taken as linear between two samples, so that energy is quadratic."""
        columns = _RAILS + _PER_RAIL * rails
        self._fine, self._coarse = _Ring(fine, columns), _Ring(coarse, columns)
        self._smooth = smooth
        self._rails = rails
        self._watt_columns = list(range(columns))[_WATTS]
        self._latest = 0.0  # the greatest lateness since the last coarse row
        self._next_coarse = -math.inf

    def append(self, row: list[float], meters: list[_Meter]) -> None:
        """Keep a sample; the cost does not depend on how many there were."""
        self._fine.append(row)
        self._latest = max(self._latest, row[_LATE])
        if row[_TIME] < self._next_coarse:
            return
        self._next_coarse = row[_TIME] + _COARSE_STEP_SECONDS
        row[_LATE], self._latest = self._latest, 0.0
        row[_WATTS] = [meter.peak for meter in meters]
        self._coarse.append(row)
        for meter in meters:
            meter.peak = math.nan

    def samples(self) -> Floats:
        """Return time and powers of every sample that is kept."""
        return self._fine.rows(0, len(self._fine), [_TIME, *self._watt_columns])

    def window(self, start: float, end: float) -> _Window:
        """Return what is known between two times; outside of the record nothing is."""
        if not len(self._fine) or not end > start:
            return self._empty(max(0.0, end - start))
        oldest, newest = self._coarse.row(0)[_TIME], self._fine.row(len(self._fine) - 1)[_TIME]
        first, last = min(max(start, oldest), newest), min(max(end, oldest), newest)
        change = self._at(last) - self._at(first)
        before_first = math.nextafter(first, -math.inf)
        inside = self._fine.position(before_first), self._fine.position(last)
        fine = self._fine.rows(*inside, [_LATE, *self._watt_columns])
        peaks, latest = self._extremes(fine, first, last)
        return _Window(
            seconds=end - start,
            samples=len(fine) if first >= self._fine.row(0)[_TIME] else round(change[_SAMPLES]),
            rate=float(change[_SAMPLES]) / (last - first) if last > first else 0.0,
            missed=round(change[_MISSED]),
            joules=change[_JOULES],
            dark=change[_DARK] + (end - start) - (last - first),
            flagged=change[_FLAGGED],
            peaks=peaks,
            watts=fine[:, 1:],
            late=fine[:, 0],
            latest=latest,
        )

    def _empty(self, seconds: float) -> _Window:
        rails = self._rails
        none, no_rows = np.full(rails, math.nan), np.zeros((0, rails))
        dark, zeros = np.full(rails, seconds), np.zeros(rails)
        return _Window(seconds, 0, 0.0, 0, zeros, dark, zeros, none, no_rows, np.zeros(0), 0.0)

    def _at(self, moment: float) -> Floats:
        """Return the running sums at a time within the record, between two rows."""
        oldest_fine = self._fine.row(0)
        fine = moment >= oldest_fine[_TIME]
        ring = self._fine if fine else self._coarse
        after = ring.position(moment)
        before = ring.row(after - 1)
        if fine and after == len(ring):
            return before.copy()
        following = ring.row(after) if after < len(ring) else oldest_fine
        if not fine and oldest_fine[_TIME] < following[_TIME]:
            following = oldest_fine
        step = following[_TIME] - before[_TIME]
        share = (moment - before[_TIME]) / step
        sums = before + share * (following - before)
        if fine and self._smooth:
            slope = following[_WATTS] - before[_WATTS]
            rising = following[_JOULES] > before[_JOULES]  # the step is not dark
            bend = np.where(rising & np.isfinite(slope), slope, 0.0)
            sums[_JOULES] += step * (share * share - share) / 2 * bend
        return sums

    def _extremes(self, fine: Floats, first: float, last: float) -> tuple[Floats, float]:
        """Return the highest reading of each rail and the greatest lateness in a window."""
        rows = [fine]
        if first < self._fine.row(0)[_TIME]:
            inside = self._coarse.position(first), self._coarse.position(last)
            rows.append(self._coarse.rows(*inside, [_LATE, *self._watt_columns]))
        every = np.concatenate(rows)
        if not len(every):
            return np.full(self._rails, math.nan), 0.0
        return np.fmax.reduce(every[:, 1:]), float(every[:, 0].max())


def _figures(rail: Rail, window: _Window, index: int) -> RailFigures:
    """Return a rail's figures in a window; the error bar is explained at `Power.energy`."""
    flagged = round(float(window.flagged[index]))
    dark = float(window.dark[index])
    known = window.seconds - dark
    peak = float(window.peaks[index])
    max_w = peak if math.isfinite(peak) else None
    if not known > 1e-9:  # not even one step between two readings
        return RailFigures(None, max_w, None, None, flagged)
    joules = float(window.joules[index])
    mean = joules / known
    if dark > _MAX_DARK_SHARE * window.seconds:
        return RailFigures(mean, max_w, None, None, flagged)
    filled = mean * dark
    error = (
        rail.step_watts * known
        + rail.relative_error * joules
        + 2 * rail.lag_seconds * mean
        + filled
    )
    return RailFigures(mean, max_w, joules + filled, error, flagged)


def _spread(watts: Floats) -> float:
    """Return the standard deviation of the readings that there are."""
    known = watts[np.isfinite(watts)]
    return float(known.std()) if len(known) else 0.0
