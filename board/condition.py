"""In what state a machine is while something is measured on it: heat, clocks, other work.

    watch = ConditionWatch()
    watch.read()                  # once per second
    concerns(readings, profile)   # what speaks against figures taken meanwhile

Everything comes from files that Linux has on a board and on a PC alike. What a machine does not
tell is None, and nothing is concluded from it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from board.system import SystemMonitor

SYSFS, PROCFS = Path("/sys"), Path("/proc")

# Fields of /proc/stat's first line (proc_stat(5)) in clock ticks. Guests are counted in user time.
_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ, _STEAL = 0, 1, 2, 5, 6, 7
_BUSY = (_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ)
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

MARGIN_C = 10.0
"""Closer than this to the limit of the chip's temperature, figures count as taken too hot."""

MOST_OTHER_CORES = 0.2
"""Work of other processes, in cores, up to which figures count as undisturbed."""

_MOST_STOLEN_CORES = 0.02  # by the hypervisor, where this is a virtual machine
_SLOW_CLOCK = 0.95  # of the highest, with a governor that promises the highest
MOST_CLOCK_STEP_SECONDS = 0.5


class Concern(NamedTuple):
    """Something that speaks against figures: a short name and a line for the reader."""

    name: str
    text: str


@dataclass(frozen=True)
class Condition:
    """The state at one time, and what was done since the reading before.

    Attributes
    ----------
    time_s : monotonic time, s
    temperature_c : the warmest of the processor's sensors, degrees Celsius
    clock_mhz : of the slowest CPU, MHz
    own_cores, other_cores : CPU time per elapsed time of this process, and of all others
    stolen_cores : what the hypervisor gave to other machines
    throttled : the kernel holds clocks down because of heat
    wall_offset_s : by how much the wall clock was set since the first reading, s
    """

    time_s: float
    temperature_c: float | None
    clock_mhz: float | None
    own_cores: float
    other_cores: float | None
    stolen_cores: float | None
    throttled: bool | None
    wall_offset_s: float


COLUMNS = tuple(Condition.__dataclass_fields__)


class ConditionWatch:
    """Reads the state of the machine.

    Parameters
    ----------
    sysfs, procfs : where Linux's files lie
    """

    def __init__(self, sysfs: Path = SYSFS, procfs: Path = PROCFS) -> None:
        self._sysfs, self._procfs = sysfs, procfs
        self._system = SystemMonitor(sysfs)
        self._before = self._times()
        self._throttle_count = self._throttle_events()
        self._wall_offset = time.time() - time.monotonic()

    @property
    def temperature_source(self) -> str | None:
        """The driver whose sensor was read, None where there is none."""
        return self._system.temperature_source

    def governor(self) -> str | None:
        """What chooses the CPUs' clock; several names where they differ."""
        names = {_text(path) for path in self._cpufreq("scaling_governor")} - {None}
        return ", ".join(sorted(str(name) for name in names)) or None

    def highest_clock_mhz(self) -> float | None:
        """The most that every CPU can do, MHz."""
        return self._slowest("cpuinfo_max_freq")

    def read(self) -> Condition:
        """Return the present state."""
        now, own, busy, stolen = times = self._times()
        before, self._before = self._before, times
        seconds = max(1e-9, now - before[0])
        own_cores = (own - before[1]) / seconds
        other_cores = stolen_cores = None
        if busy is not None and stolen is not None and before[2] is not None:
            other_cores = max(0.0, (busy - before[2]) / seconds - own_cores)
            stolen_cores = (stolen - (before[3] or 0.0)) / seconds
        return Condition(
            time_s=now,
            temperature_c=self._system.temperature(),
            clock_mhz=self._slowest("scaling_cur_freq"),
            own_cores=own_cores,
            other_cores=other_cores,
            stolen_cores=stolen_cores,
            throttled=self._throttled(),
            wall_offset_s=time.time() - time.monotonic() - self._wall_offset,
        )

    def _times(self) -> tuple[float, float, float | None, float | None]:
        """Return the time, and CPU seconds of this process, of all processes, and stolen."""
        text = _text(self._procfs / "stat") or ""
        now, own = time.monotonic(), time.process_time()
        words = text.partition("\n")[0].split()
        if len(words) <= _STEAL + 1 or words[0] != "cpu":
            return now, own, None, None
        seconds = [int(word) / _TICKS_PER_SECOND for word in words[1:]]
        return now, own, sum(seconds[field] for field in _BUSY), seconds[_STEAL]

    def _cpufreq(self, name: str) -> list[Path]:
        return list((self._sysfs / "devices/system/cpu").glob(f"cpu[0-9]*/cpufreq/{name}"))

    def _slowest(self, name: str) -> float | None:
        clocks = [_number(path) for path in self._cpufreq(name)]
        return min((khz / 1000 for khz in clocks if khz), default=None)

    def _throttle_events(self) -> int | None:
        """Count how often x86 processors throttled themselves, None on others."""
        pattern = "devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"
        counts = [_number(path) for path in self._sysfs.glob(pattern)]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    def _throttled(self) -> bool | None:
        """Tell whether clocks are held down: a cooling device is on, or throttling was counted."""
        states = [
            _number(path / "cur_state")
            for path in (self._sysfs / "class/thermal").glob("cooling_device*")
            if "cpufreq" in (_text(path / "type") or "") or _text(path / "type") == "Processor"
        ]
        events, before = self._throttle_events(), self._throttle_count
        self._throttle_count = events
        if events is None and not states:
            return None
        return any(states) or (events is not None and before is not None and events > before)


def concerns(
    readings: Sequence[Condition],
    limit_c: float | None,
    governor: str | None,
    highest_mhz: float | None,
) -> list[Concern]:
    """Return what speaks against figures taken during these readings.

    Parameters
    ----------
    readings : in order
    limit_c : the highest temperature that the chip's maker allows, degrees Celsius
    governor, highest_mhz : of the CPUs; a clock below the highest is a concern under "performance"
    """
    if not readings:
        return []
    found = [
        _heat(readings, limit_c),
        _throttling(readings, governor, highest_mhz),
        _other_work(readings),
        _clock_step(readings),
    ]
    return [concern for concern in found if concern]


def _heat(readings: Sequence[Condition], limit_c: float | None) -> Concern | None:
    hottest = max((r.temperature_c for r in readings if r.temperature_c is not None), default=None)
    if hottest is None or limit_c is None or hottest < limit_c - MARGIN_C:
        return None
    return Concern("hot", f"up to {hottest:.0f} C, and the chip's limit is {limit_c:.0f} C")


def _throttling(
    readings: Sequence[Condition], governor: str | None, highest_mhz: float | None
) -> Concern | None:
    times = sum(bool(r.throttled) for r in readings)
    if times:
        return Concern("throttled", f"heat held the CPUs' clock down in {times} readings of "
                       f"{len(readings)}")  # fmt: skip
    slowest = min((r.clock_mhz for r in readings if r.clock_mhz is not None), default=None)
    if governor != "performance" or slowest is None or highest_mhz is None:
        return None
    if slowest >= _SLOW_CLOCK * highest_mhz:
        return None
    return Concern("throttled", f"the CPUs' clock fell to {slowest:.0f} of {highest_mhz:.0f} MHz")


def _other_work(readings: Sequence[Condition]) -> Concern | None:
    other = _mean([r.other_cores for r in readings])
    stolen = _mean([r.stolen_cores for r in readings])
    if other > MOST_OTHER_CORES:
        return Concern("disturbed", f"other processes took {other:.2f} cores")
    if stolen > _MOST_STOLEN_CORES:
        return Concern("disturbed", f"the hypervisor took {stolen:.2f} cores")
    return None


def _clock_step(readings: Sequence[Condition]) -> Concern | None:
    """Tell when the clock was set: files' times lie; the figures are on the monotonic clock."""
    step = readings[-1].wall_offset_s - readings[0].wall_offset_s
    if abs(step) < MOST_CLOCK_STEP_SECONDS:
        return None
    return Concern("clock", f"the wall clock was set by {step:+.1f} s; durations are not affected")


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    try:
        return int(_text(path) or "")
    except ValueError:
        return None
