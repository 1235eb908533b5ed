"""Where power readings come from: PYNQ, Linux's hwmon and powercap files, NVIDIA's NVML.

Each source lists its rails once and then reads all of them at a constant cost. A reading that
fails is NaN; whether a number is believable is judged by the sampler (`board.power`).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from board.power_files import Attribute, ChipKey, Reader, chip_of, entries, find_chips, text
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
# Every so many inspections of a rail, lost files are looked for, or one is compared with pynq.
_CARE_EVERY = 5
# A file may differ from pynq's reading that often in a row: the power can change between the two.
_TRIES = 20
_SAME = 1e-6  # relative


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
    one_by_one : each rail takes its time to read, and can be read alone
    """

    name = "none"
    counts_energy = False
    one_by_one = False

    def __init__(self, text: str, rails: Sequence[Rail] = (), total_rail: str | None = None):
        self.text = text
        self.rails = tuple(rails)
        names = {rail.name for rail in rails}
        self.total_rail = total_rail if total_rail in names else None

    def read(self) -> list[float]:
        """Return one reading per rail, W (or J, see `counts_energy`), NaN where there is none."""
        return []

    def read_rail(self, index: int) -> float:
        """Return one rail's reading."""
        return self.read()[index]

    def inspect(self, index: int) -> float:
        """Look after a rail; return its current, A, NaN where it is not measured.

        The sampler does this a few times per second, for one rail in turn.
        """
        return math.nan

    def close(self) -> None:
        """Release files and libraries; no reading after this."""


@dataclass
class _Sensor:
    """One reading of a rail: from its file, from pynq, or from the file and compared with pynq.

    Attributes
    ----------
    read : gives the reading, V, A or W
    file : what Linux shows the reading in, None where it is not known
    chip : whose file that is, None where it is found by its path only
    by_pynq : gives what pynq says, None where pynq is not asked
    """

    read: Reader
    file: Attribute | None = None
    chip: ChipKey | None = None
    by_pynq: Reader | None = None

    def agrees(self) -> bool:
        """Return whether file and pynq told the same, as far as they told anything."""
        if self.file is None or self.by_pynq is None:
            return True
        before, by_pynq, after = self.file(), self.by_pynq(), self.file()
        allowed = _SAME * abs(before)
        wrong = by_pynq < min(before, after) - allowed or by_pynq > max(before, after) + allowed
        return not wrong  # NaN is not

    def reopen(self, chips: dict[ChipKey, Path]) -> None:
        """Look for a file that is gone where its chip is now."""
        assert self.file is not None
        folder = self.file.path.parent if self.chip is None else chips.get(self.chip)
        if folder is None:
            return
        if folder != self.file.path.parent:
            self.by_pynq = None  # libsensors goes on reading the old place: another chip's by now
        self.file.reopen(folder / self.file.path.name)


@dataclass(frozen=True)
class _Sensors:
    """How one rail is read; power is derived where only voltage and current are measured."""

    volts: _Sensor | None
    amps: _Sensor | None
    watts: _Sensor | None

    def of_power(self) -> tuple[_Sensor, ...]:
        """Return what is read and multiplied for the power, nothing where it is not measured."""
        if self.watts is not None:
            return (self.watts,)
        return (self.volts, self.amps) if self.volts and self.amps else ()

    def every(self) -> tuple[_Sensor, ...]:
        return tuple(filter(None, (self.volts, self.amps, self.watts)))


class _BoardSource(Source):
    """The rails of a board's profile that can be read, each on its own."""

    one_by_one = True

    def __init__(self, name: str, where: str, profile: Profile, found: dict[str, _Sensors]):
        self._found = {rail.name: found[rail.name] for rail in profile.rails if rail.name in found}
        rails = [
            Rail(rail.name, rail.step_watts, rail.max_watts, rail.max_amps)
            for rail in profile.rails
            if rail.name in found and found[rail.name].of_power()
        ]
        missing = [rail.name for rail in profile.rails if rail.name not in {r.name for r in rails}]
        lacks = f", not found: {' '.join(missing)}" if missing else ""
        super().__init__(f"{len(rails)} rails of the {where}{lacks}", rails, profile.total_rail)
        self.name = name
        self._sensors = [self._found[rail.name] for rail in rails]
        self._readers = [_reader(sensors.of_power()) for sensors in self._sensors]
        self._inspections = 0
        self._compared = 0  # the rail whose file is compared with pynq
        self._differed = 0  # times in a row

    def read(self) -> list[float]:
        return [read() for read in self._readers]

    def read_rail(self, index: int) -> float:
        return self._readers[index]()

    def inspect(self, index: int) -> float:
        sensors = self._sensors[index]
        for sensor in (*sensors.of_power(), sensors.amps):
            if sensor and sensor.file and not sensor.file.gone:
                sensor.file.look()
        self._inspections += 1
        if self._inspections % _CARE_EVERY == 0 and not self._find_again():
            self._compare()
        return sensors.amps.read() if sensors.amps else math.nan

    def _find_again(self) -> bool:
        """Open files that are gone where their chips are now; return whether there are any."""
        sensors = [sensor for rail in self._sensors for sensor in rail.every()]
        gone = [sensor for sensor in sensors if sensor.file and sensor.file.gone]
        folders = {s.file.path.parent.parent for s in gone if s.file}
        chips = {key: path for folder in folders for key, path in find_chips(folder).items()}
        for sensor in gone:
            sensor.reopen(chips)
        return bool(gone)

    def _compare(self) -> None:
        """Take one rail's power from pynq for good where its file keeps telling another one."""
        index = self._compared
        power = self._sensors[index].of_power()
        if all(sensor.agrees() for sensor in power):
            self._compared, self._differed = (index + 1) % len(self._sensors), 0
            return
        self._differed += 1
        if self._differed == _TRIES:
            for sensor in power:
                _ask_pynq(sensor)
            self._readers[index] = _reader(power)
            self.text += f"; {self.rails[index].name} by pynq itself, its file told another power"

    def close(self) -> None:
        for sensors in self._found.values():
            for sensor in sensors.every():
                if sensor.file is not None:
                    sensor.file.close()


def _reader(sensors: tuple[_Sensor, ...]) -> Reader:
    """Return what reads a power that one sensor tells or two have as their product."""
    if len(sensors) == 1:
        return sensors[0].read
    volts, amps = (sensor.read for sensor in sensors)
    return lambda: volts() * amps()


def _ask_pynq(sensor: _Sensor) -> None:
    if sensor.by_pynq is not None and sensor.file is not None:
        sensor.file.close()
        sensor.read, sensor.file = sensor.by_pynq, None


# ---- PYNQ ---------------------------------------------------------------------------------------

_PYNQ_KINDS = {"voltage": _VOLTS_PER_COUNT, "current": _AMPS_PER_COUNT, "power": _WATTS_PER_COUNT}


def open_pmbus(profile: Profile, sysfs: Path) -> Source:
    """Return the rails that PYNQ finds and names; `sysfs` has no say in it.

    libsensors, which pynq asks, opens, reads and closes a file for each reading. Here the same
    files stay open instead, which takes a tenth of the time. A file counts only if it tells what
    pynq tells, now and from time to time later; else, or if it is not known, pynq is asked.

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
    wanted = {rail.name for rail in profile.rails}
    found = {
        name: _Sensors(
            *(_pynq_sensor(pmbus, getattr(rail, kind, None), kind) for kind in _PYNQ_KINDS)
        )
        for name, rail in rails.items()
        if name in wanted
    }
    every = [sensor for sensors in found.values() for sensor in sensors.of_power()]
    direct = {s.file.path.parent.parent for s in every if s.file}
    how = f", read from their files in {' and '.join(map(str, sorted(direct)))}" if direct else ""
    others = sum(sensor.file is None for sensor in every)
    how += f" but for {others} that pynq reads" if direct and others else ""
    source = _BoardSource("pmbus", f"{profile.name} that pynq.pmbus finds{how}", profile, found)
    if not source.rails:
        source.close()
        raise PowerError(f"pynq.pmbus finds no rail of the {profile.name}")
    return source


def _pynq_sensor(pmbus: Any, sensor: Any, kind: str) -> _Sensor | None:
    """Return how a sensor of pynq.pmbus is read: from its file, if that tells the same."""
    if sensor is None:
        return None
    by_pynq = _pynq_reader(sensor)
    path = _file_of(pmbus, sensor)
    try:
        file = Attribute(path, _PYNQ_KINDS[kind]) if path else None
    except OSError:
        file = None
    if path is None or file is None:
        return _Sensor(by_pynq, by_pynq=by_pynq)
    found = _Sensor(file, file, chip_of(path.parent), by_pynq)
    # What can be read neither way has been compared with nothing.
    known = math.isfinite(by_pynq()) and math.isfinite(file())
    if not known or not any(found.agrees() for _ in range(_TRIES)):
        _ask_pynq(found)
    return found


def _pynq_reader(sensor: Any) -> Reader:
    """Return what asks pynq for a sensor's value.

    pynq's Sensor ignores libsensors' return code and gives its last value again when a read fails.
    The buffer that it keeps the value in is therefore set to NaN first.
    """
    buffer = getattr(sensor, "_value", None)

    def read() -> float:
        try:
            if buffer is not None:
                buffer[0] = math.nan
            return float(sensor.value)
        except Exception:  # pynq's sensors have no common error
            return math.nan

    return read


def _file_of(pmbus: Any, sensor: Any) -> Path | None:
    """Return the file that libsensors reads for a sensor of pynq.pmbus: <chip>/power1_input.

    pynq keeps the chip and a number, whose name libsensors knows; where this pynq keeps them
    otherwise nothing is found.
    """
    try:
        library, ffi, chip = pmbus._lib, pmbus._ffi, sensor._chip
        next_feature = ffi.new("int [1]")
        while feature := library.sensors_get_features(chip, next_feature):
            following = ffi.new("int [1]")
            while part := library.sensors_get_all_subfeatures(chip, feature, following):
                if part.number == sensor._number:
                    return Path(ffi.string(chip.path).decode(), ffi.string(part.name).decode())
    except Exception:  # AttributeError, TypeError, and cffi's own
        return None
    return None


# ---- hwmon --------------------------------------------------------------------------------------


def open_hwmon(profile: Profile, sysfs: Path) -> Source:
    """Return the board's rails as Linux's drivers show them below class/hwmon.

    Raises
    ------
    PowerError
        None of the board's power monitors is there, or they may not be read.
    """
    folder = sysfs / "class" / "hwmon"
    chips = find_chips(folder)
    found, refused = dict[str, _Sensors](), list[str]()
    for rail in profile.rails:
        key = rail.driver, rail.address
        if key not in chips:
            continue
        try:
            found[rail.name] = _open_rail(chips[key], rail)
        except OSError as error:
            refused.append(f"{error.filename}: {error.strerror}")
    source = _BoardSource("hwmon", f"{profile.name}, from {folder}", profile, found)
    if not source.rails:
        source.close()
        drivers = " or ".join(sorted({rail.driver for rail in profile.rails})) or "power monitor"
        raise PowerError(refused[0] if refused else f"no {drivers} of the board in {folder}")
    return source


def _open_rail(chip: Path, rail: RailProfile) -> _Sensors:
    """Open those of a rail's three attributes that exist.

    Raises
    ------
    OSError
        One exists and cannot be opened.
    """
    kinds = (("in", _VOLTS_PER_COUNT), ("curr", _AMPS_PER_COUNT), ("power", _WATTS_PER_COUNT))
    opened: list[_Sensor | None] = []
    for kind, scale in kinds:
        try:
            file = Attribute(chip / f"{kind}{rail.channel}_input", scale)
        except FileNotFoundError:
            opened.append(None)
        except OSError:
            for sensor in opened:
                if sensor and sensor.file:
                    sensor.file.close()
            raise
        else:
            opened.append(_Sensor(file, file, (rail.driver, rail.address)))
    return _Sensors(*opened)


# ---- RAPL ---------------------------------------------------------------------------------------


class _Counter:
    """An energy counter that starts again at zero when it has reached its range."""

    def __init__(self, file: Attribute, span: float):
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
    zones = [p for p in entries(folder) if re.fullmatch(r"intel-rapl:\d+(:\d+)?", p.name)]
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
    name = text(zone / "name")
    parent, colon, _ = zone.name.rpartition(":")
    if name and ":" in parent and colon:
        return f"{text(folder / parent / 'name')}/{name}"
    return name


def _open_counter(zone: Path) -> _Counter:
    span = text(zone / "max_energy_range_uj")
    try:
        joules = float(span or "nan") * _JOULES_PER_COUNT
    except ValueError:
        joules = math.nan
    return _Counter(Attribute(zone / "energy_uj", _JOULES_PER_COUNT), joules)


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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
