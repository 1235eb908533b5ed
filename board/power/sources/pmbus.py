"""Power readings of a board's rails through PYNQ."""

from __future__ import annotations

import math
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from tutelage.board.power.sources.board_rails import (
    AMPS_PER_COUNT,
    COMPARISONS,
    VOLTS_PER_COUNT,
    WATTS_PER_COUNT,
    BoardSource,
    RailSensor,
    RailSensors,
)
from tutelage.board.power.sources.chips import chips_of
from tutelage.board.power.sources.hwmon import hwmon_rails
from tutelage.board.power.sources.registry import register_source
from tutelage.board.power.sources.source import PowerError, PowerSource
from tutelage.board.power.sources.sysfs_attributes import Attribute, Reader
from tutelage.core.board_profile import Profile
from tutelage.core.errors import one_line

_PYNQ_KINDS = {"voltage": VOLTS_PER_COUNT, "current": AMPS_PER_COUNT, "power": WATTS_PER_COUNT}


@register_source("pmbus", preference=10)
def open_pmbus(profile: Profile, sysfs: Path) -> PowerSource:
    """Return the rails that PYNQ finds and names, and from `sysfs` those that it does not.

    PYNQ's names are those in libsensors' configuration on the image, which has no name for an
    INA226 behind iio-hwmon (chip "*-i2c-5-40" in PYNQ's zcu104.conf).

    pynq uses libsensors, which opens, reads and closes a file for each reading. Here the same files
    are kept open, which takes a tenth of the time. A file is used only if it gives the same reading
    as pynq, now and in later comparisons. Otherwise, or if it is unknown, pynq is used.

    Raises
    ------
    PowerError
        pynq is missing or does not load, or it finds none of the board's rails.
    """
    try:
        pmbus = import_module("pynq.pmbus")
    except ModuleNotFoundError as error:
        raise PowerError(f"{error.name} is not installed") from error
    except Exception as error:  # pynq searches for hardware when imported
        raise PowerError(f"pynq does not load: {one_line(error)}") from error
    try:
        with warnings.catch_warnings():  # turns its warning of missing libsensors into an error
            warnings.simplefilter("error", UserWarning)
            rails = pmbus.get_rails()
    except Exception as error:
        raise PowerError(f"pynq finds no sensors: {one_line(error)}") from error
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
    more = {name: s for name, s in hwmon_rails(profile, sysfs, known)[0].items() if s.of_power()}
    places = sorted({str(s.file.path.parent) for r in more.values() for s in r.every() if s.file})
    if more:
        how += f"; {' '.join(more)}, which pynq does not name, from {' and '.join(places)}"
    where = f"{profile.name} that pynq.pmbus finds{how}"
    return BoardSource("pmbus", where, profile, found | more, sysfs)


def _pynq_sensors(pmbus: Any, rail: Any) -> RailSensors:
    """Return how a rail of pynq.pmbus is read."""
    volts, amps, watts = (
        _pynq_sensor(pmbus, getattr(rail, kind, None), kind) for kind in _PYNQ_KINDS
    )
    files = [sensor.file.path for sensor in (volts, amps, watts) if sensor and sensor.file]
    chips = list(chips_of(files[0].parent).values()) if files else []
    return RailSensors(volts, amps, watts, chips[0].shunt_ohms() if chips else None)


def _pynq_sensor(pmbus: Any, sensor: Any, kind: str) -> RailSensor | None:
    """Return a sensor of pynq.pmbus, which is read from its file if that gives the same."""
    if sensor is None:
        return None
    by_pynq = _pynq_reader(sensor)
    path = _file_of(pmbus, sensor)
    try:
        file = Attribute(path, _PYNQ_KINDS[kind]) if path else None
    except OSError:
        file = None
    if path is None or file is None:
        return RailSensor(by_pynq, by_pynq=by_pynq)
    found = RailSensor(file, file, next(iter(chips_of(path.parent)), None), by_pynq)
    # Without a reading from both, there was no comparison.
    known = math.isfinite(by_pynq()) and math.isfinite(file())
    if not known or not any(found.agrees() for _ in range(COMPARISONS)):
        found.ask_pynq()
    return found


def _pynq_reader(sensor: Any) -> Reader:
    """Return a function that reads a sensor through pynq.

    pynq's Sensor ignores libsensors' return code and repeats its last value if a reading fails. The
    buffer of that value is therefore set to NaN first.
    """
    buffer = getattr(sensor, "_value", None)

    def read() -> float:
        try:
            if buffer is not None:
                buffer[0] = math.nan
            return float(sensor.value)
        except Exception:  # errors of pynq's sensors have no common base
            return math.nan

    return read


def _file_of(pmbus: Any, sensor: Any) -> Path | None:
    """Return the file that libsensors reads for a sensor of pynq.pmbus: <chip>/power1_input.

    pynq's object has the chip and a number, for which libsensors has the name. The result is None
    if this version of pynq stores them differently.
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
