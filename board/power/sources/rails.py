"""Where power readings come from: PYNQ, Linux's hwmon, NVIDIA's NVML; RAPL is in `power_rapl`.

Each source lists its rails once and then reads all of them at a constant cost. A reading that
fails is NaN. Whether a rail's power reading is believed beside its volts and amperes is judged by
`tutelage.board.power.plausibility`, whether a single number is possible by the sampler
(`tutelage.board.power.sampler`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tutelage.board.power.plausibility import NOTHING, PRODUCT, TIMES, Belief, Doubt
from tutelage.board.power.sources.attributes import Attribute, Reader
from tutelage.board.power.sources.chips import Chip, ChipKey, chips_of, find_chips, why_absent
from tutelage.core.board_profile import Profile, RailProfile
from tutelage.core.errors import TutelageError

# hwmon's units: Documentation/hwmon/sysfs-interface.rst of Linux.
_VOLTS_PER_COUNT = 1e-3
_AMPS_PER_COUNT = 1e-3
_WATTS_PER_COUNT = 1e-6
# NVML's nvmlDeviceGetPowerUsage: mW, "accurate to within +/- 5% of current power draw".
_NVML_STEP_WATTS = 1e-3
_NVML_RELATIVE_ERROR = 0.05
# No processor or graphics card of a PC draws more; only meant to tell nonsense from readings.
PC_MAX_WATTS = 2000.0
# Every so many inspections of a rail, lost files are looked for, or one is compared with pynq.
_CARE_EVERY = 5
# A file may differ from pynq's reading that often in a row: the power can change between the two.
_TRIES = 20
_SAME = 1e-6  # relative


class PowerError(TutelageError):
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
    min_watts : what it draws at least, W; less is nonsense too
    relative_error : share of the reading by which it may be wrong
    lag_seconds : by how much a reading may be older than its time stamp, s
    """

    name: str
    step_watts: float
    max_watts: float
    max_amps: float = math.inf
    min_watts: float = 0.0
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

    def doubts(self) -> list[Doubt]:
        """Return what speaks against readings so far."""
        return []

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

    def reopen(self, chips: dict[ChipKey, Chip]) -> None:
        """Look for a file that is gone where its chip is now."""
        assert self.file is not None
        folder = self.file.path.parent
        if self.chip is not None:
            if self.chip not in chips:
                return
            folder = chips[self.chip].folder
        if folder != self.file.path.parent:
            self.by_pynq = None  # libsensors goes on reading the old place: another chip's by now
        self.file.reopen(folder / self.file.path.name)


@dataclass(frozen=True)
class _Sensors:
    """How one rail is read; power is derived where only voltage and current are measured."""

    volts: _Sensor | None
    amps: _Sensor | None
    watts: _Sensor | None
    shunt_ohms: float | None = None  # as the driver has it

    def of_power(self) -> tuple[_Sensor, ...]:
        """Return what is read and multiplied for the power, nothing where it is not measured."""
        return (self.watts,) if self.watts is not None else self.of_product()

    def of_product(self) -> tuple[_Sensor, ...]:
        """Return voltage and current, nothing where one of them is not measured."""
        return (self.volts, self.amps) if self.volts and self.amps else ()

    def every(self) -> tuple[_Sensor, ...]:
        return tuple(filter(None, (self.volts, self.amps, self.watts)))


class _BoardSource(Source):
    """The rails of a board's profile that can be read, each on its own."""

    one_by_one = True

    def __init__(
        self, name: str, where: str, profile: Profile, found: dict[str, _Sensors], sysfs: Path
    ):
        self._found = {rail.name: found[rail.name] for rail in profile.rails if rail.name in found}
        known = [rail for rail in profile.rails if rail.name in found]
        known = [rail for rail in known if found[rail.name].of_power()]
        rails = [
            Rail(rail.name, rail.step_watts, rail.max_watts, rail.max_amps, rail.least_watts)
            for rail in known
        ]
        text = f"{len(rails)} rail{'' if len(rails) == 1 else 's'} of the {where}"
        text += _lacks([rail for rail in profile.rails if rail not in known], sysfs)
        super().__init__(text, rails, profile.total_rail)
        self.name = name
        self._sensors = [self._found[rail.name] for rail in rails]
        self._beliefs = [
            Belief(profile, rail, _described(rail, sensors), sensors.shunt_ohms)
            for rail, sensors in zip(known, self._sensors, strict=True)
        ]
        self._readers = [self._reader(index) for index in range(len(rails))]
        names = [rail.name for rail in rails]
        self._total = names.index(self.total_rail) if self.total_rail in names else None
        self._inspections = 0
        self._compared = 0  # the rail whose file is compared with pynq
        self._differed = 0  # times in a row
        for index in range(len(rails)):
            for _ in range(TIMES):
                self._judge(index)

    def _reader(self, index: int) -> Reader:
        """Return what reads a rail's power, of what is believed of it."""
        sensors, basis = self._sensors[index], self._beliefs[index].basis
        if basis == NOTHING:
            return lambda: math.nan
        used = sensors.of_product() if basis == PRODUCT else sensors.of_power()
        if len(used) == 1:
            return used[0].read
        volts, amps = (sensor.read for sensor in used)
        return lambda: volts() * amps()

    def _judge(self, index: int) -> float:
        """Compare a rail's readings with each other; return its current, A."""
        volts, amps, watts = (self._sensors[index].volts, self._sensors[index].amps,
                              self._sensors[index].watts)  # fmt: skip
        told = [watts.read()] if watts else []
        now = (volts.read() if volts else math.nan, amps.read() if amps else math.nan)
        told += [watts.read()] if watts else []
        if self._beliefs[index].look(*now, told):
            self._readers[index] = self._reader(index)
        return now[1]

    def doubts(self) -> list[Doubt]:
        return [doubt for belief in self._beliefs for doubt in belief.doubts]

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
        if self._total not in (None, index):
            self._judge(self._total)  # all energies are its: it is judged each time
        return self._judge(index)

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
            self._readers[index] = self._reader(index)
            self.text += f"; {self.rails[index].name} by pynq itself, its file told another power"

    def close(self) -> None:
        for sensors in self._found.values():
            for sensor in sensors.every():
                if sensor.file is not None:
                    sensor.file.close()


def _lacks(missing: Sequence[RailProfile], sysfs: Path) -> str:
    """Return which rails are not found, and what to look at for the first of them."""
    if not missing:
        return ""
    names = " ".join(rail.name for rail in missing)
    return f", not found: {names} ({missing[0].name}: {_absent(missing[0], sysfs)})"


def _absent(rail: RailProfile, sysfs: Path) -> str:
    return why_absent(sysfs, rail.driver, rail.address)


def _described(rail: RailProfile, sensors: _Sensors) -> str:
    file = sensors.of_power()[0].file
    return f"{rail.driver} at 0x{rail.address:02x} ({file.path if file else 'by pynq'})"


def _ask_pynq(sensor: _Sensor) -> None:
    if sensor.by_pynq is not None and sensor.file is not None:
        sensor.file.close()
        sensor.read, sensor.file = sensor.by_pynq, None


# ---- PYNQ ---------------------------------------------------------------------------------------

_PYNQ_KINDS = {"voltage": _VOLTS_PER_COUNT, "current": _AMPS_PER_COUNT, "power": _WATTS_PER_COUNT}


def open_pmbus(profile: Profile, sysfs: Path) -> Source:
    """Return the rails that PYNQ finds and names, and of `sysfs` those that it does not.

    PYNQ's names are those of libsensors' configuration on the image, which has no name for an
    INA226 behind iio-hwmon (chip "*-i2c-5-40" in PYNQ's zcu104.conf).

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
    found = {name: _pynq_sensors(pmbus, rail) for name, rail in rails.items() if name in wanted}
    known = {name for name, sensors in found.items() if sensors.of_power()}
    if not known:
        raise PowerError(f"pynq.pmbus finds no rail of the {profile.name}")
    every = [sensor for sensors in found.values() for sensor in sensors.of_power()]
    direct = {s.file.path.parent.parent for s in every if s.file}
    how = f", read from their files in {' and '.join(map(str, sorted(direct)))}" if direct else ""
    others = sum(sensor.file is None for sensor in every)
    how += f" but for {others} that pynq reads" if direct and others else ""
    more = {name: s for name, s in _hwmon_rails(profile, sysfs, known)[0].items() if s.of_power()}
    places = sorted({str(s.file.path.parent) for r in more.values() for s in r.every() if s.file})
    if more:
        how += f"; {' '.join(more)}, which pynq does not name, from {' and '.join(places)}"
    where = f"{profile.name} that pynq.pmbus finds{how}"
    return _BoardSource("pmbus", where, profile, found | more, sysfs)


def _pynq_sensors(pmbus: Any, rail: Any) -> _Sensors:
    """Return how a rail of pynq.pmbus is read."""
    volts, amps, watts = (
        _pynq_sensor(pmbus, getattr(rail, kind, None), kind) for kind in _PYNQ_KINDS
    )
    files = [sensor.file.path for sensor in (volts, amps, watts) if sensor and sensor.file]
    chips = list(chips_of(files[0].parent).values()) if files else []
    return _Sensors(volts, amps, watts, chips[0].shunt_ohms() if chips else None)


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
    found = _Sensor(file, file, next(iter(chips_of(path.parent)), None), by_pynq)
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
    found, refused = _hwmon_rails(profile, sysfs)
    source = _BoardSource("hwmon", f"{profile.name}, from {folder}", profile, found, sysfs)
    if not source.rails:
        source.close()
        drivers = " or ".join(sorted({rail.driver for rail in profile.rails})) or "power monitor"
        why = "".join(f": {_absent(rail, sysfs)}" for rail in profile.rails[:1])
        raise PowerError(refused[0] if refused else f"no {drivers} of the board in {folder}{why}")
    return source


def _hwmon_rails(
    profile: Profile, sysfs: Path, without: Collection[str] = ()
) -> tuple[dict[str, _Sensors], list[str]]:
    """Return the rails that hwmon shows, but for those named, and why others may not be read."""
    chips = find_chips(sysfs / "class" / "hwmon")
    found, refused = dict[str, _Sensors](), list[str]()
    for rail in profile.rails:
        key = _key(chips, profile, rail)
        if key is None or rail.name in without:
            continue
        try:
            found[rail.name] = _open_rail(chips[key], key, rail)
        except OSError as error:
            refused.append(f"{error.filename}: {error.strerror}")
    return found, refused


def _key(chips: dict[ChipKey, Chip], profile: Profile, rail: RailProfile) -> ChipKey | None:
    """Return the chip that measures a rail; one by its name only where the board has one such."""
    if (rail.driver, rail.address) in chips:
        return rail.driver, rail.address
    alone = len({each.address for each in profile.rails if each.driver == rail.driver}) == 1
    return (rail.driver, None) if alone and (rail.driver, None) in chips else None


def _open_rail(chip: Chip, key: ChipKey, rail: RailProfile) -> _Sensors:
    """Open those of a rail's three attributes that exist.

    Raises
    ------
    OSError
        One exists and cannot be opened.
    """
    kinds = (("in", _VOLTS_PER_COUNT), ("curr", _AMPS_PER_COUNT), ("power", _WATTS_PER_COUNT))
    opened: list[_Sensor | None] = []  # volts, amps, watts
    for kind, scale in kinds:
        try:
            file = Attribute(chip.file(kind, rail.channel), scale)
        except FileNotFoundError:
            opened.append(None)
        except OSError:
            for sensor in opened:
                if sensor and sensor.file:
                    sensor.file.close()
            raise
        else:
            opened.append(_Sensor(file, file, key))
    volts, amps, watts = opened
    return _Sensors(volts, amps, watts, chip.shunt_ohms())


# ---- NVML ---------------------------------------------------------------------------------------


class _NvmlSource(Source):
    name = "nvml"

    def __init__(self, nvml: Any, devices: list[Any]):
        self._nvml = nvml
        self._devices = devices
        parts = [f"GPU{number}" for number in range(len(devices))]
        rails = [
            Rail(name, _NVML_STEP_WATTS, PC_MAX_WATTS, relative_error=_NVML_RELATIVE_ERROR)
            for name in parts
        ]
        total = add_total(rails, parts)
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


def add_total(rails: list[Rail], parts: list[str]) -> str:
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


def _one_line(error: Exception) -> str:
    """Return an error's text without line breaks, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
