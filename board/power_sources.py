"""Where power readings come from: PYNQ, Linux's hwmon and powercap files, NVIDIA's NVML.

Each source lists its rails once and then reads all of them at a constant cost. A reading that
fails is NaN; whether a number is believable is judged by the sampler (`board.power`).
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from board.profile import Profile, RailProfile

# hwmon's units: Documentation/hwmon/sysfs-interface.rst of Linux.
_VOLTS_PER_COUNT = 1e-3
_AMPS_PER_COUNT = 1e-3
_WATTS_PER_COUNT = 1e-6
# powercap counts microjoules: Documentation/power/powercap/powercap.rst.
_JOULES_PER_COUNT = 1e-6
# RAPL's counters move about once per millisecond: Intel SDM vol. 3B, "Package RAPL Domain".
_RAPL_UPDATE_SECONDS = 1e-3
# NVML's nvmlDeviceGetPowerUsage: mW, "accurate to within +/- 5% of current power draw".
_NVML_STEP_WATTS = 1e-3
_NVML_RELATIVE_ERROR = 0.05
# No processor or graphics card of a PC draws more; only meant to tell nonsense from readings.
_PC_MAX_WATTS = 2000.0
# A sysfs attribute with a number; anything longer is none.
_ATTRIBUTE_BYTES = 64

Reader = Callable[[], float]  # the present value, NaN where it cannot be read


class PowerError(Exception):
    """A power source that is not there; the text is one line for the user."""


@dataclass(frozen=True)
class Rail:
    """One thing whose power is measured.

    Attributes
    ----------
    name : unique within its source
    step_watts : resolution of a reading, W
    max_watts : the most it can draw, W; readings far above are nonsense
    max_amps : the same for its current, A
    relative_error : share of the reading by which it may be wrong
    lag_seconds : by how much a reading may be older than its time stamp, s
    """

    name: str
    step_watts: float
    max_watts: float
    max_amps: float = math.inf
    relative_error: float = 0.0
    lag_seconds: float = 0.0


class Source:
    """A set of rails that are read together; this one has none.

    Attributes
    ----------
    name : as `open_power` knows it
    text : one line for the user: what is measured, or why nothing is
    rails : what `read` returns, in its order
    total_rail : the rail that holds all others, None where there is none
    counts_energy : `read` returns joules since some time instead of watts
    """

    name = "none"
    counts_energy = False

    def __init__(self, text: str, rails: Sequence[Rail] = (), total_rail: str | None = None):
        self.text = text
        self.rails = tuple(rails)
        names = {rail.name for rail in rails}
        self.total_rail = total_rail if total_rail in names else None

    def read(self) -> list[float]:
        """Return one reading per rail, W (or J, see `counts_energy`), NaN where there is none."""
        return []

    def read_amps(self, index: int) -> float:
        """Return the current of a rail, A; NaN where it is not measured."""
        return math.nan

    def close(self) -> None:
        """Release files and libraries; no reading after this."""


class _File:
    """A sysfs attribute that stays open: one system call per reading, no directory is walked."""

    def __init__(self, path: Path, scale: float):
        self._scale = scale
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __call__(self) -> float:
        try:
            return float(os.pread(self._descriptor, _ATTRIBUTE_BYTES, 0)) * self._scale
        except (OSError, ValueError):  # the chip is gone, or what it says is no number
            return math.nan

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1  # another file may get the number


@dataclass(frozen=True)
class _Readers:
    """How one rail is read; power is derived where only voltage and current are measured."""

    volts: Reader | None
    amps: Reader | None
    watts: Reader | None

    def power(self) -> Reader | None:
        if self.watts is not None or self.volts is None or self.amps is None:
            return self.watts
        volts, amps = self.volts, self.amps
        return lambda: volts() * amps()


class _BoardSource(Source):
    """The rails of a board's profile that can be read."""

    def __init__(self, name: str, where: str, profile: Profile, found: dict[str, _Readers]):
        rails, self._watts, self._amps = [], list[Reader](), list["Reader | None"]()
        for rail in profile.rails:
            readers = found.get(rail.name)
            power = readers.power() if readers else None
            if readers and power:
                rails.append(Rail(rail.name, rail.step_watts, rail.max_watts, rail.max_amps))
                self._watts.append(power)
                self._amps.append(readers.amps)
        missing = [rail.name for rail in profile.rails if rail.name not in {r.name for r in rails}]
        lacks = f", not found: {' '.join(missing)}" if missing else ""
        super().__init__(f"{len(rails)} rails of the {where}{lacks}", rails, profile.total_rail)
        self.name = name

    def read(self) -> list[float]:
        return [watts() for watts in self._watts]

    def read_amps(self, index: int) -> float:
        amps = self._amps[index]
        return amps() if amps else math.nan


# ---- PYNQ ---------------------------------------------------------------------------------------


def _pynq_reader(sensor: Any) -> Reader | None:
    """Return what reads a sensor of pynq.pmbus.

    pynq's Sensor ignores libsensors' return code and gives its last value again when a read fails.
    The buffer that it keeps the value in is therefore set to NaN first.
    """
    if sensor is None:
        return None
    buffer = getattr(sensor, "_value", None)

    def read() -> float:
        try:
            if buffer is not None:
                buffer[0] = math.nan
            return float(sensor.value)
        except Exception:  # pynq's sensors have no common error
            return math.nan

    return read


def open_pmbus(profile: Profile, sysfs: Path) -> Source:
    """Return the rails that PYNQ reads through libsensors; `sysfs` has no say in it.

    Raises
    ------
    PowerError
        There is no pynq, it does not load, or it knows none of the board's rails.
    """
    try:
        pmbus = import_module("pynq.pmbus")
    except ModuleNotFoundError as error:
        raise PowerError(f"{error.name} is not installed") from error
    except Exception as error:  # pynq looks for hardware while it is imported
        raise PowerError(f"pynq does not load: {_one_line(error)}") from error
    try:
        with warnings.catch_warnings():  # its warning of a missing libsensors becomes our reason
            warnings.simplefilter("error", UserWarning)
            rails = pmbus.get_rails()
    except Exception as error:
        raise PowerError(f"pynq finds no sensors: {_one_line(error)}") from error
    found = {
        name: _Readers(*(_pynq_reader(getattr(rail, kind, None)) for kind in _PYNQ_KINDS))
        for name, rail in rails.items()
    }
    source = _BoardSource("pmbus", f"{profile.name}, by pynq.pmbus", profile, found)
    if not source.rails:
        raise PowerError(f"pynq.pmbus finds no rail of the {profile.name}")
    return source


_PYNQ_KINDS = ("voltage", "current", "power")


# ---- hwmon --------------------------------------------------------------------------------------


class _HwmonSource(_BoardSource):
    def __init__(self, profile: Profile, folder: Path, found: dict[str, _Readers]):
        super().__init__("hwmon", f"{profile.name}, from {folder}", profile, found)
        self._files = [
            file for r in found.values() for file in (r.volts, r.amps, r.watts) if file is not None
        ]

    def close(self) -> None:
        for file in self._files:
            assert isinstance(file, _File)
            file.close()


def open_hwmon(profile: Profile, sysfs: Path) -> Source:
    """Return the board's rails as Linux's drivers show them below class/hwmon.

    Raises
    ------
    PowerError
        None of the board's power monitors is there, or they may not be read.
    """
    folder = sysfs / "class" / "hwmon"
    chips = {key: path for path in _entries(folder) if (key := _chip_of(path))}
    found, refused = dict[str, _Readers](), list[str]()
    for rail in profile.rails:
        chip = chips.get((rail.driver, rail.address))
        if chip is None:
            continue
        try:
            found[rail.name] = _open_rail(chip, rail)
        except OSError as error:
            refused.append(f"{error.filename}: {error.strerror}")
    source = _HwmonSource(profile, folder, found)
    if not source.rails:
        source.close()
        drivers = " or ".join(sorted({rail.driver for rail in profile.rails})) or "power monitor"
        raise PowerError(refused[0] if refused else f"no {drivers} of the board in {folder}")
    return source


def _chip_of(path: Path) -> tuple[str, int] | None:
    """Return driver and I2C address of a hwmon directory: its device is called <bus>-<address>."""
    device = re.fullmatch(r"\d+-([0-9a-f]{4})", (path / "device").resolve().name)
    name = _text(path / "name")
    return (name, int(device.group(1), 16)) if device and name else None


def _open_rail(chip: Path, rail: RailProfile) -> _Readers:
    """Open those of a rail's three attributes that exist.

    Raises
    ------
    OSError
        One exists and cannot be opened.
    """
    kinds = (("in", _VOLTS_PER_COUNT), ("curr", _AMPS_PER_COUNT), ("power", _WATTS_PER_COUNT))
    opened: list[_File | None] = []
    for kind, scale in kinds:
        path = chip / f"{kind}{rail.channel}_input"
        try:
            opened.append(_File(path, scale))
        except FileNotFoundError:
            opened.append(None)
        except OSError:
            for file in filter(None, opened):
                file.close()
            raise
    return _Readers(*opened)


# ---- RAPL ---------------------------------------------------------------------------------------


class _Counter:
    """An energy counter that starts again at zero when it has reached its range."""

    def __init__(self, file: _File, span: float):
        """`span` is the counter's max_energy_range_uj, J; NaN where it is not known."""
        self._file = file
        self._span = span
        self._last = file()
        self._joules = 0.0

    def __call__(self) -> float:
        """Return the energy since the counter was opened, J."""
        now = self._file()
        if math.isnan(now):
            return math.nan
        if math.isnan(self._last):
            self._last = now
        step = now - self._last
        if step < 0:
            step += self._span
        self._last = now
        if math.isnan(step):  # it wrapped and nobody knows by how much
            return math.nan
        self._joules += step
        return self._joules

    def close(self) -> None:
        self._file.close()


class _RaplSource(Source):
    name = "rapl"
    counts_energy = True

    def __init__(self, counters: dict[str, _Counter], parts: list[str]):
        self._counters = list(counters.values())
        limit = _PC_MAX_WATTS
        rails = [Rail(name, 0.0, limit, lag_seconds=_RAPL_UPDATE_SECONDS) for name in counters]
        self._sum = _indices(counters, parts)
        total = _add_total(rails, parts)
        super().__init__(
            f"RAPL, processor {'and memory ' if _has_memory(parts) else ''}only: "
            f"{' + '.join(parts)}",
            rails,
            total,
        )

    def read(self) -> list[float]:
        values = [counter() for counter in self._counters]
        return values + [sum(values[i] for i in self._sum)] * (len(self.rails) - len(values))

    def close(self) -> None:
        for counter in self._counters:
            counter.close()


def open_rapl(profile: Profile, sysfs: Path) -> Source:
    """Return the processor's own energy counters below class/powercap; no board's profile is asked.

    The total is packages and memory. Cores and graphics are parts of a package, and psys holds the
    packages: they are listed, and never added to it. The counters count on by themselves, so that
    energies are exact between two readings.

    Raises
    ------
    PowerError
        There are no counters, or they may not be read (since Linux 5.10 only root may).
    """
    folder = sysfs / "class" / "powercap"
    # intel-rapl-mmio:0 shows the same package once more, by another way.
    zones = [p for p in _entries(folder) if re.fullmatch(r"intel-rapl:\d+(:\d+)?", p.name)]
    counters, parts = dict[str, _Counter](), list[str]()
    try:
        for zone in zones:
            name = _rapl_name(zone, folder)
            if name and name not in counters:
                counters[name] = _open_counter(zone)
                if re.fullmatch(r"package[^/]*(/dram)?", name):
                    parts.append(name)
    except OSError as error:
        for counter in counters.values():
            counter.close()
        raise PowerError(f"{error.filename}: {error.strerror}") from error
    if not parts:
        for counter in counters.values():
            counter.close()
        raise PowerError(f"no RAPL package in {folder}")
    return _RaplSource(counters, parts)


def _rapl_name(zone: Path, folder: Path) -> str | None:
    """Return "package-0" for intel-rapl:0 and "package-0/core" for its part intel-rapl:0:0."""
    name = _text(zone / "name")
    parent, colon, _ = zone.name.rpartition(":")
    if name and ":" in parent and colon:
        return f"{_text(folder / parent / 'name')}/{name}"
    return name


def _open_counter(zone: Path) -> _Counter:
    span = _text(zone / "max_energy_range_uj")
    try:
        joules = float(span or "nan") * _JOULES_PER_COUNT
    except ValueError:
        joules = math.nan
    return _Counter(_File(zone / "energy_uj", _JOULES_PER_COUNT), joules)


def _has_memory(parts: list[str]) -> bool:
    return any(name.endswith("/dram") for name in parts)


# ---- NVML ---------------------------------------------------------------------------------------


class _NvmlSource(Source):
    name = "nvml"

    def __init__(self, nvml: Any, devices: list[Any]):
        self._nvml = nvml
        self._devices = devices
        parts = [f"GPU{number}" for number in range(len(devices))]
        rails = [
            Rail(name, _NVML_STEP_WATTS, _PC_MAX_WATTS, relative_error=_NVML_RELATIVE_ERROR)
            for name in parts
        ]
        total = _add_total(rails, parts)
        super().__init__(f"NVML, graphics only: {' + '.join(parts)}", rails, total)

    def read(self) -> list[float]:
        values = [self._milliwatts(device) * 1e-3 for device in self._devices]
        return values + [sum(values)] * (len(self.rails) - len(values))

    def _milliwatts(self, device: Any) -> float:
        try:
            return float(self._nvml.nvmlDeviceGetPowerUsage(device))
        except Exception:  # NVMLError, and ctypes' own
            return math.nan

    def close(self) -> None:
        self._nvml.nvmlShutdown()


def open_nvml(profile: Profile, sysfs: Path) -> Source:
    """Return the NVIDIA cards that tell their power; profile and `sysfs` have no say in it.

    Raises
    ------
    PowerError
        nvidia-ml-py or the driver is missing, or no card tells its power.
    """
    try:
        nvml = import_module("pynvml")
    except ImportError as error:
        raise PowerError("nvidia-ml-py is not installed") from error
    try:
        nvml.nvmlInit()
    except Exception as error:
        raise PowerError(f"NVML does not start: {_one_line(error)}") from error
    try:
        count = nvml.nvmlDeviceGetCount()
        devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        if not devices:
            raise PowerError("NVML finds no card")
        for device in devices:
            nvml.nvmlDeviceGetPowerUsage(device)
    except Exception as error:
        nvml.nvmlShutdown()
        if isinstance(error, PowerError):
            raise
        raise PowerError(f"NVML tells no power: {_one_line(error)}") from error
    return _NvmlSource(nvml, devices)


# ---- what the sources share ---------------------------------------------------------------------


def _add_total(rails: list[Rail], parts: list[str]) -> str:
    """Return the name of the rail that holds `parts`; several get one more rail, their sum."""
    if len(parts) == 1:
        return parts[0]
    added = [rail for rail in rails if rail.name in parts]
    rails.append(
        Rail(
            "total",
            sum(rail.step_watts for rail in added),
            sum(rail.max_watts for rail in added),
            relative_error=max(rail.relative_error for rail in added),
            lag_seconds=max(rail.lag_seconds for rail in added),
        )
    )
    return "total"


def _indices(names: dict[str, Any], wanted: list[str]) -> list[int]:
    return [index for index, name in enumerate(names) if name in wanted]


def _entries(folder: Path) -> list[Path]:
    """Return what a directory of sysfs holds, by name; nothing where it does not exist.

    Linux numbers hwmon as drivers come up, so that the order means nothing.
    """
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip() or None
    except OSError:
        return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
