"""Power source for the rails of a board's profile.

A rail is read from Linux's files, through pynq, or from the files with occasional comparisons with
pynq. If a chip reappears under another path, its files are reopened there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.board.power.plausibility import NOTHING, PRODUCT, TIMES, Belief, Doubt
from tutelage.board.power.sources.chips import Chip, ChipKey, find_chips, why_absent
from tutelage.board.power.sources.source import PowerSource, Rail
from tutelage.board.power.sources.sysfs_attributes import Attribute, Reader
from tutelage.core.board_profile import Profile, RailProfile

# hwmon's units: Documentation/hwmon/sysfs-interface.rst of Linux.
VOLTS_PER_COUNT = 1e-3
AMPS_PER_COUNT = 1e-3
WATTS_PER_COUNT = 1e-6
COMPARISONS = 20
"""Number of consecutive differences from pynq after which a file counts as wrong.

The power can change between two readings."""
_CARE_EVERY = 5  # inspections between two searches for lost files, or comparisons with pynq
_SAME = 1e-6  # relative


@dataclass
class RailSensor:
    """A sensor of a rail, read from its file, which may be compared with pynq, or through pynq.

    Attributes
    ----------
    read : function that returns the reading, V, A or W
    file : Linux's file with the reading; None if unknown
    chip : chip of this file; None if it is known by its path only
    by_pynq : function that returns pynq's reading; None if pynq is not used
    """

    read: Reader
    file: Attribute | None = None
    chip: ChipKey | None = None
    by_pynq: Reader | None = None

    def agrees(self) -> bool:
        """Return whether file and pynq give the same reading, or one of them gives none."""
        if self.file is None or self.by_pynq is None:
            return True
        before, by_pynq, after = self.file(), self.by_pynq(), self.file()
        allowed = _SAME * abs(before)
        wrong = by_pynq < min(before, after) - allowed or by_pynq > max(before, after) + allowed
        return not wrong  # NaN is not

    def reopen(self, chips: dict[ChipKey, Chip]) -> None:
        """Reopen a closed file at the chip's current path, if the chip exists."""
        assert self.file is not None
        folder = self.file.path.parent
        if self.chip is not None:
            if self.chip not in chips:
                return
            folder = chips[self.chip].folder
        if folder != self.file.path.parent:
            self.by_pynq = None  # libsensors still reads the old path, now that of another chip
        self.file.reopen(folder / self.file.path.name)

    def ask_pynq(self) -> None:
        """Use pynq's reading from now on, if pynq has one."""
        if self.by_pynq is not None and self.file is not None:
            self.file.close()
            self.read, self.file = self.by_pynq, None


@dataclass(frozen=True)
class RailSensors:
    """The sensors of one rail. Without a power sensor, power is volts times amperes.

    Attributes
    ----------
    volts, amps, watts : sensors; None if not measured
    shunt_ohms : resistance of the shunt that the driver assumes, ohms; None if unknown
    """

    volts: RailSensor | None
    amps: RailSensor | None
    watts: RailSensor | None
    shunt_ohms: float | None = None

    def of_power(self) -> tuple[RailSensor, ...]:
        """Return the sensors whose product is the power; none if it is not measured."""
        return (self.watts,) if self.watts is not None else self.of_product()

    def of_product(self) -> tuple[RailSensor, ...]:
        """Return the sensors of voltage and current; none if one of them is missing."""
        return (self.volts, self.amps) if self.volts and self.amps else ()

    def every(self) -> tuple[RailSensor, ...]:
        """Return all sensors."""
        return tuple(filter(None, (self.volts, self.amps, self.watts)))


class BoardSource(PowerSource):
    """The readable rails of a board's profile.

    Parameters
    ----------
    name : name of the source
    where : description of the board and the sensors' location, for messages
    profile : profile of the board
    found : sensors by rail
    sysfs : mount point of Linux's sysfs
    """

    one_by_one = True

    def __init__(
        self, name: str, where: str, profile: Profile, found: dict[str, RailSensors], sysfs: Path
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
        self._compared = 0  # rail whose file is compared with pynq
        self._differed = 0  # consecutive differences
        for index in range(len(rails)):
            for _ in range(TIMES):
                self._judge(index)

    def _reader(self, index: int) -> Reader:
        """Return the function that reads a rail's power, by its plausible sensors."""
        sensors, basis = self._sensors[index], self._beliefs[index].basis
        if basis == NOTHING:
            return lambda: math.nan
        used = sensors.of_product() if basis == PRODUCT else sensors.of_power()
        if len(used) == 1:
            return used[0].read
        volts, amps = (sensor.read for sensor in used)
        return lambda: volts() * amps()

    def _judge(self, index: int) -> float:
        """Check a rail's readings against each other; return its current, A."""
        volts, amps, watts = (self._sensors[index].volts, self._sensors[index].amps,
                              self._sensors[index].watts)  # fmt: skip
        powers = [watts.read()] if watts else []
        now = (volts.read() if volts else math.nan, amps.read() if amps else math.nan)
        powers += [watts.read()] if watts else []
        if self._beliefs[index].look(*now, powers):
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
            self._judge(self._total)  # at each inspection, since energies are those of this rail
        return self._judge(index)

    def _find_again(self) -> bool:
        """Reopen closed files at their chips' current paths; return whether there were any."""
        sensors = [sensor for rail in self._sensors for sensor in rail.every()]
        gone = [sensor for sensor in sensors if sensor.file and sensor.file.gone]
        folders = {s.file.path.parent.parent for s in gone if s.file}
        chips = {key: path for folder in folders for key, path in find_chips(folder).items()}
        for sensor in gone:
            sensor.reopen(chips)
        return bool(gone)

    def _compare(self) -> None:
        """Compare one rail's file with pynq, and use pynq from now on if they keep differing."""
        index = self._compared
        power = self._sensors[index].of_power()
        if all(sensor.agrees() for sensor in power):
            self._compared, self._differed = (index + 1) % len(self._sensors), 0
            return
        self._differed += 1
        if self._differed == COMPARISONS:
            for sensor in power:
                sensor.ask_pynq()
            self._readers[index] = self._reader(index)
            self.text += f"; {self.rails[index].name} through pynq, since its file differs from it"

    def close(self) -> None:
        for sensors in self._found.values():
            for sensor in sensors.every():
                if sensor.file is not None:
                    sensor.file.close()


def _lacks(missing: Sequence[RailProfile], sysfs: Path) -> str:
    """Return the missing rails as text, with what to check for the first of them."""
    if not missing:
        return ""
    names = " ".join(rail.name for rail in missing)
    return f", not found: {names} ({missing[0].name}: {why_missing(missing[0], sysfs)})"


def why_missing(rail: RailProfile, sysfs: Path) -> str:
    """Return why a rail's chip is missing, with what to check."""
    return why_absent(sysfs, rail.driver, rail.address)


def _described(rail: RailProfile, sensors: RailSensors) -> str:
    file = sensors.of_power()[0].file
    return f"{rail.driver} at 0x{rail.address:02x} ({file.path if file else 'through pynq'})"
