"""CPU time and memory of this process, the machine's temperature, and facts about the machine.

    monitor = SystemMonitor()
    ...; monitor.read()          # repeatedly, e.g. once per second
    monitor.report()             # since the monitor was created

The figures come from psutil. Without it they are None, except for the temperature.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

try:
    psutil: Any = import_module("psutil")
except ImportError:  # optional: the figures are then None
    psutil = None

SYSFS = Path("/sys")
DEVICE_TREE = Path("/sys/firmware/devicetree/base")  # the target of /proc/device-tree

# Drivers of the processor's sensors, by psutil's names. Others (disks, regulators) are used only
# without any of these. "ams" is the Zynq UltraScale+'s system monitor.
_PROCESSOR_SENSORS = (
    "ams", "coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal",
)  # fmt: skip
# Readings outside of this range come from unconnected sensors.
_PLAUSIBLE_CELSIUS = (-40.0, 150.0)
_CELSIUS_PER_COUNT = 1e-3  # Linux: Documentation/driver-api/thermal/sysfs-api.rst


class SystemMonitor:
    """Monitor of this process since its construction.

    Parameters
    ----------
    sysfs : mount point of Linux's sysfs

    Attributes
    ----------
    temperature_source : driver of the sensor that was read last; None without one
    """

    def __init__(self, sysfs: Path = SYSFS):
        self._sysfs = sysfs
        self._process = psutil.Process() if psutil else None
        self.temperature_source: str | None = None
        self._start = self._last = (time.monotonic(), self._cpu_seconds())
        self._peak_before = _peak_of_process()
        self._memory_peak: int | None = None
        self._hottest: float | None = None
        self.read()

    def read(self) -> dict[str, float | None]:
        """Return the current figures.

        Returns
        -------
        cpu_percent : CPU use of this process since the last reading; 100 is one core
        memory_bytes : resident memory, bytes
        temperature_c : warmest of the processor's sensors, degrees Celsius
        """
        now = (time.monotonic(), self._cpu_seconds())
        percent, self._last = _percent(self._last, now), now
        memory = self._process.memory_info().rss if self._process else None
        if memory is not None:
            self._memory_peak = max(memory, self._memory_peak or 0)
        warmth = self.temperature()
        if warmth is not None:
            self._hottest = warmth if self._hottest is None else max(warmth, self._hottest)
        return {"cpu_percent": percent, "memory_bytes": memory, "temperature_c": warmth}

    def report(self) -> dict[str, float | None]:
        """Return the figures since the monitor was created.

        Returns
        -------
        cpu_seconds : user and system time of this process, s
        cpu_percent_mean : mean CPU use; 100 is one core
        memory_peak_bytes : peak resident memory, bytes
        temperature_max_c : highest temperature of all readings, degrees Celsius
        """
        last = self._last
        self.read()
        now, self._last = self._last, last  # a report does not affect the next reading
        used = None if now[1] is None or self._start[1] is None else now[1] - self._start[1]
        return {
            "cpu_seconds": used,
            "cpu_percent_mean": _percent(self._start, now),
            "memory_peak_bytes": self._peak(),
            "temperature_max_c": self._hottest,
        }

    def _cpu_seconds(self) -> float | None:
        if self._process is None:
            return None
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def _peak(self) -> int | None:
        """Return the kernel's peak if it has risen since the start, or else the highest reading."""
        if self._memory_peak is None:
            return None
        peak = _peak_of_process()
        return max(peak, self._memory_peak) if peak > self._peak_before else self._memory_peak

    def temperature(self) -> float | None:
        """Return the temperature of the processor's warmest sensor, degrees Celsius."""
        for sensors in (_psutil_temperatures(), _thermal_zones(self._sysfs)):
            own = {name: values for name, values in sensors.items() if name in _PROCESSOR_SENSORS}
            warmest = max(
                ((value, name) for name, values in (own or sensors).items() for value in values),
                default=None,
            )
            if warmest:
                self.temperature_source = warmest[1]
                return warmest[0]
        return None


def board_facts(device_tree: Path = DEVICE_TREE) -> dict[str, str | int | None]:
    """Return facts about the machine for reports, without its name and addresses.

    Returns
    -------
    board : model in the device tree; None on a PC
    machine, image, kernel, python, numpy, opencv : architecture and versions; None if unknown.
        image is the system's name in /etc/os-release
    cpus : number of processors
    """
    return {
        "board": _model(device_tree / "model"),
        "machine": platform.machine() or None,
        "cpus": os.cpu_count(),
        "image": _image(),
        "kernel": platform.release() or None,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": _opencv_version(),
    }


def _percent(before: tuple[float, float | None], after: tuple[float, float | None]) -> float | None:
    """Return the CPU use between two (time, CPU time) in s; 100 is one core."""
    if before[1] is None or after[1] is None:
        return None
    elapsed = after[0] - before[0]
    return 100 * (after[1] - before[1]) / elapsed if elapsed > 0 else 0.0


def _peak_of_process() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux


def _psutil_temperatures() -> dict[str, list[float]]:
    """Return the plausible temperatures of each driver, degrees Celsius."""
    read = getattr(psutil, "sensors_temperatures", None)  # not on every system
    found: dict[str, list[Any]] = read() if read else {}
    return _plausible({name: [entry.current for entry in found[name]] for name in found})


def _thermal_zones(sysfs: Path) -> dict[str, list[float]]:
    """Return the plausible temperatures of each type of thermal zone, degrees Celsius."""
    zones: dict[str, list[float]] = {}
    for zone in (sysfs / "class" / "thermal").glob("thermal_zone*"):
        try:
            name = (zone / "type").read_text(errors="replace").strip()
            celsius = float((zone / "temp").read_text()) * _CELSIUS_PER_COUNT
        except (OSError, ValueError):  # a zone may be unreadable while its chip sleeps
            continue
        zones.setdefault(name, []).append(celsius)
    return _plausible(zones)


def _plausible(sensors: dict[str, list[float]]) -> dict[str, list[float]]:
    low, high = _PLAUSIBLE_CELSIUS
    kept = {name: [v for v in values if low < v < high] for name, values in sensors.items()}
    return {name: values for name, values in kept.items() if values}


def _model(path: Path) -> str | None:
    try:
        return path.read_bytes().rstrip(b"\0\n").decode(errors="replace") or None
    except OSError:
        return None


def _image() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _opencv_version() -> str | None:
    try:
        return str(import_module("cv2").__version__)
    except ImportError:
        return None
