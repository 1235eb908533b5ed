"""A board's power monitors in Linux's hwmon, and diagnosis of missing ones.

A chip is identified by its driver and its I2C address. Linux shows it in one of two forms:

- The hwmon driver (ina2xx, irps5401) creates a hwmon device below the I2C device <bus>-<address>.
  Its name is the chip's, with a suffix in some device trees ("ina226_u183").
- The IIO driver ina2xx-adc is bound to the INA226, and iio-hwmon shows its channels: a platform
  device without an address, named after its node in the device tree, "ina226" in mainline's
  zynqmp-zcu104-revC.dts. The node's io-channels give the I2C device and the order of the channels:
  the first voltage is that of the shunt, so in2 is the rail's.

The units are the same in both forms: iio-hwmon gives mV and mA as in IIO, and power in microwatts
(drivers/hwmon/iio_hwmon.c).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tutelage.board.power.sources.sysfs_attributes import entries, text

ChipKey = tuple[str, "int | None"]  # driver and I2C address; None if unknown

# The kinds of ina2xx-adc's channels, in order: shunt, rail, power, current
# (ina226_channels in drivers/iio/adc/ina2xx-adc.c). The first one is not a voltage of the rail.
_IIO_KINDS = ("in", "in", "power", "curr")
_IIO_SHUNT = 0
_CELL_BYTES = 4
_MOST_BYTES = 4096  # of a property in the device tree


@dataclass(frozen=True)
class Chip:
    """A power monitor in hwmon.

    Attributes
    ----------
    folder : directory of the hwmon device
    device : directory of the I2C device; None if unknown
    numbers : for iio-hwmon, kind ("in", "curr", "power") -> number of the chip's attribute; None
        if attributes have the numbers of their channels
    """

    folder: Path
    device: Path | None = None
    numbers: Mapping[str, int] | None = None

    def file(self, kind: str, channel: int) -> Path:
        """Return the path of a channel's reading, which may not exist."""
        number = channel if self.numbers is None else self.numbers.get(kind, "_missing")
        return self.folder / f"{kind}{number}_input"

    def shunt_ohms(self) -> float | None:
        """Return the resistance of the shunt that the driver assumes, ohms; None if unknown.

        hwmon's ina2xx shows microohms, ina2xx-adc ohms (microohms in its first versions).
        """
        shown = [self.folder / "shunt_resistor"]
        shown += self.device.glob("iio:device*/in_shunt_resistor") if self.device else []
        for path in shown:
            try:
                value = float(text(path) or "")
            except ValueError:
                continue
            return value * 1e-6 if value >= 1 else value
        return None


def find_chips(folder: Path) -> dict[ChipKey, Chip]:
    """Return the chips in a class/hwmon directory, whose numbers depend on the order of drivers.

    Chips without an address whose name occurs twice are ambiguous and left out.
    """
    chips: dict[ChipKey, Chip] = {}
    twice = set()
    for path in entries(folder):
        for key, chip in chips_of(path).items():
            if key in chips and key[1] is None:
                twice.add(key)
            chips[key] = chip
    return {key: chip for key, chip in chips.items() if key not in twice}


def chips_of(path: Path) -> dict[ChipKey, Chip]:
    """Return the chips of a hwmon device: a single one, or those behind iio-hwmon."""
    device = (path / "device").resolve()
    address = _address_of(device)
    names = _names(device / "name", path / "name", path / "label")
    if address is not None:
        return {(name, address): Chip(path, device) for name in names}
    behind = _behind_iio(path, device)
    if behind:
        return behind
    # Without a device tree, the order of the channels is the driver's.
    numbers = {"in": 2 if (path / "in2_input").exists() else 1, "curr": 1, "power": 1}
    return {(name, None): Chip(path, None, numbers) for name in names}


def _address_of(device: Path) -> int | None:
    found = re.fullmatch(r"\d+-([0-9a-f]{4})", device.name)
    return int(found.group(1), 16) if found else None


def _names(*files: Path) -> set[str]:
    """Return the names in files, without suffixes from a device tree's label or node."""
    return {re.split("[-_]", name)[0] for file in files if (name := text(file))}


def _behind_iio(path: Path, device: Path) -> dict[ChipKey, Chip]:
    """Return the chips whose channels an iio-hwmon device shows, by its device tree node."""
    node = device / "of_node"
    if b"iio-hwmon" not in _property(node / "compatible").split(b"\0"):
        return {}
    providers = _i2c_devices(path.parent.parent.parent)
    cells = _cells(node / "io-channels")
    counts: dict[str, int] = {}
    found: dict[Path, dict[str, int]] = {}
    while cells:
        provider = providers.get(cells.pop(0))
        if provider is None or not _names(provider / "name") & {"ina226", "ina219"}:
            return {}
        width = (_cells(provider / "of_node/#io-channel-cells") or [0])[0]
        channel, cells = (cells[0] if width and cells else 0), cells[width:]
        if channel >= len(_IIO_KINDS):
            return {}
        kind = _IIO_KINDS[channel]
        counts[kind] = counts.get(kind, 0) + 1
        if channel != _IIO_SHUNT:
            found.setdefault(provider, {})[kind] = counts[kind]
    return {
        (name, _address_of(provider)): Chip(path, provider, numbers)
        for provider, numbers in found.items()
        for name in _names(provider / "name")
    }


def _i2c_devices(sysfs: Path) -> dict[int, Path]:
    """Return the I2C devices by the phandle of their device tree nodes."""
    found = {}
    for path in entries(sysfs / "bus/i2c/devices"):
        phandle = _cells(path / "of_node/phandle")
        if phandle and _address_of(path) is not None:
            found[phandle[0]] = path
    return found


def _cells(path: Path) -> list[int]:
    """Return a property's numbers: 32 bits each, big-endian (Devicetree specification)."""
    value = _property(path)
    return [
        int.from_bytes(value[start : start + _CELL_BYTES], "big")
        for start in range(0, len(value) - _CELL_BYTES + 1, _CELL_BYTES)
    ]


def _property(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError:
        return b""


def why_absent(sysfs: Path, driver: str, address: int) -> str:
    """Return why hwmon does not show a chip and what to check, in one line."""
    chip = f"{driver} at 0x{address:02x}"
    devices = sysfs / "bus/i2c/devices"
    for path in entries(devices):
        if _address_of(path) != address or driver not in _names(path / "name"):
            continue
        if not (path / "driver").exists():
            return f"no driver is bound to the {chip}: load one, see {path}"
        bound = (path / "driver").resolve().name
        if any(path.glob("iio:device*")):
            return (
                f"{bound}, an IIO driver, is bound to the {chip}, and no iio-hwmon shows it: "
                "modprobe iio_hwmon, or add its node to the device tree"
            )
        return f"{bound} is bound to the {chip} but shows no readings: see dmesg, {path}/hwmon"
    guesses = [path for path in entries(sysfs / "class/hwmon") if (driver, None) in chips_of(path)]
    if len(guesses) > 1:
        places = " and ".join(map(str, guesses))
        return f"{places} are both named {driver}, and their addresses are unknown"
    return f"no {chip} in {devices}: is it in the device tree, and its bus up?"
