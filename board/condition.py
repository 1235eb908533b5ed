"""State of a machine during a measurement: temperature, clocks, other work.

    watch = ConditionWatch()
    watch.read()                                        # once per second
    concerns(readings, limit_c, governor, highest_mhz)  # doubts about figures taken meanwhile

Everything is read from files of Linux, on boards and PCs alike. Unknown values are None, and no
conclusions are drawn from them. The files are located once, since walking directories for each
reading would take the interpreter's lock from the threads whose frames are being timed.
"""

from __future__ import annotations

import math
import os
import resource
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tutelage.board.system import SystemMonitor
from tutelage.core.results.run_json import Concern

SYSFS, PROCFS = Path("/sys"), Path("/proc")

# Fields of /proc/stat's first line (proc_stat(5)) in clock ticks. Guests are counted in user time.
_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ, _STEAL = 0, 1, 2, 5, 6, 7
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

MARGIN_C = 10.0
"""Distance to the chip's temperature limit below which it counts as too hot, degrees Celsius."""

MOST_OTHER_CORES = 0.2
"""Work of other processes, in cores, above which figures count as disturbed."""

_MOST_STOLEN_CORES = 0.02  # by the hypervisor of a virtual machine
_SLOW_CLOCK = 0.95  # of the highest clock, with a governor that selects the highest
MOST_CLOCK_STEP_SECONDS = 0.5


@dataclass(frozen=True)
class Condition:
    """The state at one time, and the CPU time since the previous reading.

    Attributes
    ----------
    time_s : monotonic time, s
    temperature_c : warmest of the processor's sensors, degrees Celsius
    clock_mhz : clock of the slowest CPU, MHz
    own_cores : CPU time of this process per elapsed time
    other_cores : CPU time of all other processes in user mode, per elapsed time
    kernel_cores : CPU time of the kernel except in this process's system calls, per elapsed time:
        kernel threads, interrupts, and other processes' system calls. Includes a DPU's driver
    stolen_cores : CPU time that the hypervisor gave to other machines, per elapsed time
    throttled : whether the kernel reduces clocks because of heat
    wall_offset_s : change of the wall clock relative to the monotonic one since the start, s
    """

    time_s: float
    temperature_c: float | None
    clock_mhz: float | None
    own_cores: float
    other_cores: float | None
    kernel_cores: float | None
    stolen_cores: float | None
    throttled: bool | None
    wall_offset_s: float


COLUMNS = tuple(Condition.__dataclass_fields__)


class _Times(NamedTuple):
    """CPU times (s) up to a monotonic time (s); NaN if unknown."""

    time: float
    own_user: float
    own_kernel: float
    user: float
    kernel: float
    stolen: float


class ConditionWatch:
    """Reader of the machine's state.

    Parameters
    ----------
    sysfs, procfs : mount points of Linux's sysfs and procfs
    """

    def __init__(self, sysfs: Path = SYSFS, procfs: Path = PROCFS) -> None:
        self._sysfs, self._procfs = sysfs, procfs
        self._system = SystemMonitor(sysfs)
        self._sensors = _sensor_files(sysfs, self._system.temperature_source)
        self._clocks = self._cpufreq("scaling_cur_freq")
        cores = sysfs / "devices/system/cpu"
        self._counters = list(cores.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
        self._coolers = _cooler_files(sysfs)
        self._before = self._times()
        self._throttle_count = self._throttle_events()
        self._wall_offset = time.time() - time.monotonic()

    @property
    def temperature_source(self) -> str | None:
        """Driver of the temperature sensor; None without one."""
        return self._system.temperature_source

    def governor(self) -> str | None:
        """Return the name of the CPUs' frequency governor; several if they differ."""
        names = {_text(path) for path in self._cpufreq("scaling_governor")} - {None}
        return ", ".join(sorted(str(name) for name in names)) or None

    def highest_clock_mhz(self) -> float | None:
        """Return the highest clock that all CPUs can reach, MHz."""
        return _slowest(self._cpufreq("cpuinfo_max_freq"))

    def read(self) -> Condition:
        """Return the current state."""
        before, now = self._before, self._times()
        self._before = now
        seconds = max(1e-9, now.time - before.time)
        spent = [(b - a) / seconds for a, b in zip(before, now, strict=True)]
        _, own_user, own_kernel, user, kernel, stolen = spent
        return Condition(
            time_s=now.time,
            temperature_c=self._temperature(),
            clock_mhz=_slowest(self._clocks),
            own_cores=own_user + own_kernel,
            other_cores=_known(user - own_user),
            kernel_cores=_known(kernel - own_kernel),
            stolen_cores=_known(stolen),
            throttled=self._throttled(),
            wall_offset_s=time.time() - time.monotonic() - self._wall_offset,
        )

    def _times(self) -> _Times:
        text = _text(self._procfs / "stat") or ""
        now, own = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
        words = text.partition("\n")[0].split()
        if len(words) <= _STEAL + 1 or words[0] != "cpu":
            return _Times(now, own.ru_utime, own.ru_stime, *(3 * [math.nan]))
        seconds = [int(word) / _TICKS_PER_SECOND for word in words[1:]]
        user = seconds[_USER] + seconds[_NICE]
        kernel = seconds[_SYSTEM] + seconds[_IRQ] + seconds[_SOFTIRQ]
        return _Times(now, own.ru_utime, own.ru_stime, user, kernel, seconds[_STEAL])

    def _temperature(self) -> float | None:
        """Return the temperature of the processor's warmest sensor, degrees Celsius.

        Reads only these files. psutil would read every sensor, and those of regulators are on the
        slow bus on which the power rails are read.
        """
        values = [_number(path) for path in self._sensors]
        known = [v / 1000 for v in values if v is not None and -40_000 < v < 150_000]
        return max(known) if known else self._system.temperature()

    def _cpufreq(self, name: str) -> list[Path]:
        """Return the cpufreq files of a name; CPUs with a common clock share one."""
        files = (self._sysfs / "devices/system/cpu").glob(f"cpu[0-9]*/cpufreq/{name}")
        return sorted({path.resolve() for path in files})

    def _throttle_events(self) -> int | None:
        """Return how often x86 processors throttled themselves; None on others."""
        counts = [_number(path) for path in self._counters]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    def _throttled(self) -> bool | None:
        """Return whether clocks are reduced: a cooling device is on, or a throttle count rose."""
        states = [state for path in self._coolers if (state := _number(path)) is not None]
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
    at_rest: bool = False,
) -> list[Concern]:
    """Return the doubts about figures taken during these readings.

    Parameters
    ----------
    readings : readings in order
    limit_c : highest temperature that the chip's maker allows, degrees Celsius
    governor, highest_mhz : frequency governor and highest clock (MHz) of the CPUs. Under
        "performance", a clock below the highest is a concern on machines that do not report
        throttling. On PCs, which do, a clock below that of a single busy core is normal
    at_rest : the DPU has no jobs, so that all work of the kernel is for others. Otherwise it may be
        that of the DPU's driver, whose threads and interrupts do not count as the process's
    """
    if not readings:
        return []
    found = [
        _heat(readings, limit_c),
        _throttling(readings, governor, highest_mhz),
        _other_work(readings, at_rest),
        _clock_step(readings),
    ]
    return [concern for concern in found if concern]


def _heat(readings: Sequence[Condition], limit_c: float | None) -> Concern | None:
    hottest = max((r.temperature_c for r in readings if r.temperature_c is not None), default=None)
    if hottest is None or limit_c is None or hottest < limit_c - MARGIN_C:
        return None
    return Concern("hot", f"up to {hottest:.0f} C; the chip's limit is {limit_c:.0f} C")


def _throttling(
    readings: Sequence[Condition], governor: str | None, highest_mhz: float | None
) -> Concern | None:
    times = sum(bool(r.throttled) for r in readings)
    if times:
        return Concern("throttled", f"the CPUs' clock was reduced because of heat in {times} of "
                       f"{len(readings)} readings")  # fmt: skip
    slowest = min((r.clock_mhz for r in readings if r.clock_mhz is not None), default=None)
    known = any(r.throttled is not None for r in readings)
    if known or governor != "performance" or slowest is None or highest_mhz is None:
        return None
    if slowest >= _SLOW_CLOCK * highest_mhz:
        return None
    return Concern("throttled", f"the CPUs' clock fell to {slowest:.0f} of {highest_mhz:.0f} MHz")


def _other_work(readings: Sequence[Condition], at_rest: bool) -> Concern | None:
    other = _mean([r.other_cores for r in readings])
    if at_rest:
        other += _mean([r.kernel_cores for r in readings])
    stolen = _mean([r.stolen_cores for r in readings])
    if other > MOST_OTHER_CORES:
        return Concern("disturbed", f"other processes took {other:.2f} cores")
    if stolen > _MOST_STOLEN_CORES:
        return Concern("disturbed", f"the hypervisor took {stolen:.2f} cores")
    return None


def wall_clock_step(readings: Sequence[Condition]) -> float:
    """Return the largest change of the wall clock since the first reading, s."""
    if not readings:
        return 0.0
    steps = [reading.wall_offset_s - readings[0].wall_offset_s for reading in readings]
    return max(steps, key=abs)


def _clock_step(readings: Sequence[Condition]) -> Concern | None:
    """Return a concern if the wall clock was set, since the times of files are then wrong.

    Figures use the monotonic clock and are not affected.
    """
    step = wall_clock_step(readings)
    if abs(step) < MOST_CLOCK_STEP_SECONDS:
        return None
    return Concern("clock", f"the wall clock was set by {step:+.1f} s; durations are not affected")


def _known(cores: float) -> float | None:
    """Return a share of CPU time, or None for NaN.

    Linux counts the times of all processes in ticks, so differences can be negative.
    """
    return None if math.isnan(cores) else max(0.0, cores)


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


def _slowest(files: Iterable[Path]) -> float | None:
    """Return the lowest clock of cpufreq's files, MHz."""
    return min((khz / 1000 for path in files if (khz := _number(path))), default=None)


def _sensor_files(sysfs: Path, driver: str | None) -> list[Path]:
    """Return the temperature files of a driver, in hwmon or else in thermal zones."""
    for folders, name, files in (
        ("class/hwmon/hwmon*", "name", "temp*_input"),
        ("class/thermal/thermal_zone*", "type", "temp"),
    ):
        own = [folder for folder in sysfs.glob(folders) if _text(folder / name) == driver]
        found = [path for folder in own for path in folder.glob(files)]
        if driver and found:
            return found
    return []


def _cooler_files(sysfs: Path) -> list[Path]:
    """Return the state files of cooling devices that reduce the CPUs' clock."""
    return [
        device / "cur_state"
        for device in (sysfs / "class/thermal").glob("cooling_device*")
        if "cpufreq" in (kind := _text(device / "type") or "") or kind == "Processor"
    ]
