"""Power readings of a PC's processor from RAPL's counters in Linux's powercap files."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from pathlib import Path

from tutelage.board.power.sources.registry import register_source
from tutelage.board.power.sources.source import (
    PC_MAX_WATTS,
    PowerError,
    PowerSource,
    Rail,
    add_total,
)
from tutelage.board.power.sources.sysfs_attributes import Attribute, entries, text
from tutelage.core.board_profile import Profile

# powercap counts microjoules: Documentation/power/powercap/powercap.rst.
_JOULES_PER_COUNT = 1e-6
# RAPL updates its counters about once per millisecond: Intel SDM vol. 3B, "Package RAPL Domain".
_RAPL_UPDATE_SECONDS = 1e-3


class _Counter:
    """An energy counter that wraps to zero at the end of its range.

    Parameters
    ----------
    file : the counter's file
    span : max_energy_range_uj of the counter, J; NaN if unknown
    """

    def __init__(self, file: Attribute, span: float):
        self._file = file
        self._span = span
        self._last = file()
        self._joules = 0.0

    def __call__(self) -> float:
        """Return the energy since the counter was opened, J; NaN if it cannot be read."""
        now = self._file()
        if math.isnan(now):
            return math.nan
        if math.isnan(self._last):
            self._last = now
        step = now - self._last
        if step < 0:
            step += self._span
        self._last = now
        if math.isnan(step):  # it wrapped and its range is unknown
            return math.nan
        self._joules += step
        return self._joules

    def close(self) -> None:
        self._file.close()


class RaplSource(PowerSource):
    """The processor's energy counters, and the sum of packages and memory."""

    name = "rapl"
    counts_energy = True

    def __init__(self, counters: dict[str, _Counter], parts: list[str]):
        self._counters = list(counters.values())
        limit = PC_MAX_WATTS
        rails = [Rail(name, 0.0, limit, lag_seconds=_RAPL_UPDATE_SECONDS) for name in counters]
        self._sum = _indices(counters, parts)
        total = add_total(rails, parts)
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


@register_source("rapl", preference=30)
def open_rapl(profile: Profile, sysfs: Path) -> PowerSource:
    """Return the processor's energy counters in class/powercap; the profile is ignored.

    The total is the sum of packages and memory. Cores and graphics are parts of a package, and psys
    includes the packages: they are listed but not added. Since these are counters, the energy
    between two readings is exact.

    Raises
    ------
    PowerError
        There are no counters, or they cannot be read (since Linux 5.10 only root may).
    """
    folder = sysfs / "class" / "powercap"
    # intel-rapl-mmio:0 shows the same package again, through another interface.
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
    return RaplSource(counters, parts)


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


def _indices(names: Collection[str], wanted: list[str]) -> list[int]:
    return [index for index, name in enumerate(names) if name in wanted]
