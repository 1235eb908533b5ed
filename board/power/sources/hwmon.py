"""Power readings of a board's rails from Linux's hwmon drivers."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from tutelage.board.power.sources.board_rails import (
    AMPS_PER_COUNT,
    VOLTS_PER_COUNT,
    WATTS_PER_COUNT,
    BoardSource,
    RailSensor,
    RailSensors,
    why_missing,
)
from tutelage.board.power.sources.chips import Chip, ChipKey, find_chips
from tutelage.board.power.sources.registry import register_source
from tutelage.board.power.sources.source import PowerError, PowerSource
from tutelage.board.power.sources.sysfs_attributes import Attribute
from tutelage.core.board_profile import Profile, RailProfile


@register_source("hwmon", preference=20)
def open_hwmon(profile: Profile, sysfs: Path) -> PowerSource:
    """Return the board's rails in class/hwmon.

    Raises
    ------
    PowerError
        None of the board's power monitors exists, or they cannot be read.
    """
    folder = sysfs / "class" / "hwmon"
    found, refused = hwmon_rails(profile, sysfs)
    source = BoardSource("hwmon", f"{profile.name}, from {folder}", profile, found, sysfs)
    if not source.rails:
        source.close()
        drivers = " or ".join(sorted({rail.driver for rail in profile.rails})) or "power monitor"
        why = "".join(f": {why_missing(rail, sysfs)}" for rail in profile.rails[:1])
        raise PowerError(refused[0] if refused else f"no {drivers} of the board in {folder}{why}")
    return source


def hwmon_rails(
    profile: Profile, sysfs: Path, without: Collection[str] = ()
) -> tuple[dict[str, RailSensors], list[str]]:
    """Return the rails in hwmon, except those in `without`, and a line for each unreadable one."""
    chips = find_chips(sysfs / "class" / "hwmon")
    found, refused = dict[str, RailSensors](), list[str]()
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
    """Return the chip of a rail; by its name only if the board has a single such chip."""
    if (rail.driver, rail.address) in chips:
        return rail.driver, rail.address
    alone = len({each.address for each in profile.rails if each.driver == rail.driver}) == 1
    return (rail.driver, None) if alone and (rail.driver, None) in chips else None


def _open_rail(chip: Chip, key: ChipKey, rail: RailProfile) -> RailSensors:
    """Open the existing attributes of a rail.

    Raises
    ------
    OSError
        An attribute exists but cannot be opened.
    """
    kinds = (("in", VOLTS_PER_COUNT), ("curr", AMPS_PER_COUNT), ("power", WATTS_PER_COUNT))
    opened: list[RailSensor | None] = []  # volts, amps, watts
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
            opened.append(RailSensor(file, file, key))
    volts, amps, watts = opened
    return RailSensors(volts, amps, watts, chip.shunt_ohms())
