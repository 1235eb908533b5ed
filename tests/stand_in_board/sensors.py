"""The ZCU104's sensors as in Linux's /sys, in plain files that a test may change.

The layout is that of Linux's drivers, so hwmon's readers, libsensors, pynq.pmbus and psutil find
them. core/profiles/zcu104.toml maps the chips' channels to rails. The readings at
the start are those of an idle board in PYNQ's notebook zcu104_pmbus.ipynb (FMC's current is the
absurd value without a card); no real board was used.

The INA226 has three forms, as in kernels and device trees of the ZCU104: "ina226" by hwmon's
ina2xx, "ina226_u183" the same under the name of its label, and "iio-hwmon" by ina2xx-adc and a
platform device (mainline's zynqmp-zcu104-revC.dts, drivers/hwmon/iio_hwmon.c).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from tutelage.core.board_profile import RailProfile, load_profile

_RAILS = load_profile("zcu104").rails

# Linux's number of the bus that a chip is on (adapter's name: the channel of the I2C switch).
_BUSES = {0x43: 4, 0x44: 4, 0x40: 5}
_ADAPTERS = {4: "i2c-0-mux (chan_id 2)", 5: "i2c-0-mux (chan_id 3)"}
# mV, mA, µW
_IDLE = {
    "12V": (12113, 1159, 14050000), "INT": (851, 4375, 3500000), "1V8": (1804, 328, 562500),
    "1V2": (1203, 234, 281250), "MGTA": (898, 128, 109375), "3V3": (3304, 625, 2000000),
    "1V13": (1125, 218, 218750), "5V0": (5000, 0, 0), "FMC": (156, 10187, 31250),
    "MGTRA": (835, 39, 31250),
}  # fmt: skip
# Power of a busy core of the DPU, W: made up, after 1.24 W per core of a ZCU102 with YOLOv5n
# (14.22 W on three cores, 10.50 W idle; the source is in dpu/predict/power.toml), and its share of
# the conversion losses from 12 V.
_WATTS_PER_CORE = {"12V": 1.55, "INT": 1.24}
_INPUT = (12000, 0, 0)  # channel 1 of an IRPS5401: its own supply, not a rail
_SHUNT_MICROOHMS = 5000  # of the INA226: the device tree's shunt-resistor
_SHUNT_MILLIVOLTS = 6  # 1.159 A in it
INA226_FORMS = ("ina226", "ina226_u183", "iio-hwmon")
_NODES = "firmware/devicetree/base"
_INA226_NODE = "axi/i2c@ff030000/i2c-mux@74/i2c@3/ina226@40"
_INA226_PHANDLE = 0x37
_IDLE_CELSIUS = 45.0
_DIGITS = 12  # values are written in place with equal lengths, so no reader sees a part
# Not the machine's own cores, but the same number, since a program may read each. 1.2 GHz as the
# ZCU104's Cortex-A53, kHz.
_CPU_KHZ = (300000, 400000, 600000, 1200000)


def write_sensors(sysfs: Path, ina226: str = INA226_FORMS[0]) -> None:
    """Write class, bus and devices of the sensors and of the processor's clock into `sysfs`.

    Parameters
    ----------
    sysfs : the directory, without sensors so far
    ina226 : one of INA226_FORMS
    """
    if ina226 not in INA226_FORMS:
        raise ValueError(f"the INA226 is shown as one of {INA226_FORMS}, not {ina226!r}")
    chips: dict[tuple[str, int], list[RailProfile]] = {}
    for rail in _RAILS:
        chips.setdefault((rail.driver, rail.address), []).append(rail)
    # hwmon's numbers in the order of the drivers: bus 4 first.
    order = sorted(chips.items(), key=lambda chip: (_BUSES[chip[0][1]], chip[0][1]))
    for bus, adapter in _ADAPTERS.items():
        folder = sysfs / f"devices/i2c-{bus}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{adapter}\n")
        _link(sysfs / f"bus/i2c/devices/i2c-{bus}", folder)
        _link(folder / "subsystem", sysfs / "bus/i2c")
    for number, ((driver, address), rails) in enumerate(order):
        device = sysfs / f"devices/i2c-{_BUSES[address]}/{_BUSES[address]}-{address:04x}"
        if driver == "ina226":
            _write_ina226(sysfs, device, ina226, number)
        else:
            _take(sysfs, device, "i2c", driver, driver)
            _write_channel(_hwmon(sysfs, device, driver, number), 1, 1, _INPUT)
        for rail in rails:
            _write_channel(*_place(sysfs, rail), _IDLE[rail.name])
    platform = sysfs / "devices/platform/axi/ffa50000.ams"
    _take(sysfs, platform, "platform", "ams", "ams")
    _write(_hwmon(sysfs, platform, "ams", len(order)) / "temp1_input", round(1000 * _IDLE_CELSIUS))
    _write_processor(sysfs / "devices/system/cpu")


def _write_ina226(sysfs: Path, device: Path, form: str, number: int) -> None:
    """Write the 12V rail's monitor without its readings."""
    node = sysfs / _NODES / _INA226_NODE
    _write_node(node, b"ti,ina226\0", phandle=[_INA226_PHANDLE], reg=[0x40],
                **{"#io-channel-cells": [1], "shunt-resistor": [_SHUNT_MICROOHMS]})  # fmt: skip
    if form != "iio-hwmon":
        _take(sysfs, device, "i2c", "ina226", "ina2xx")
        _link(device / "of_node", node)
        hwmon = _hwmon(sysfs, device, form, number)
        _write(hwmon / "in0_input", _SHUNT_MILLIVOLTS)
        (hwmon / "shunt_resistor").write_text(f"{_SHUNT_MICROOHMS}\n")
        return
    _take(sysfs, device, "i2c", "ina226", "ina2xx_adc")
    _link(device / "of_node", node)
    (device / "iio:device0").mkdir()
    (device / "iio:device0/name").write_text("ina226\n")
    shunt = f"{_SHUNT_MICROOHMS * 1e-6:.9f}\n"
    (device / "iio:device0/in_shunt_resistor").write_text(shunt)
    node = sysfs / _NODES / "ina226"
    channels = [cell for channel in range(4) for cell in (_INA226_PHANDLE, channel)]
    _write_node(node, b"iio-hwmon\0", **{"io-channels": channels})
    platform = sysfs / "devices/platform/ina226"
    _take(sysfs, platform, "platform", "ina226", "iio_hwmon")
    (platform / "name").unlink()  # platform devices have none
    _link(platform / "of_node", node)
    _write(_hwmon(sysfs, platform, "ina226", number) / "in1_input", _SHUNT_MILLIVOLTS)


def _write_node(node: Path, compatible: bytes, **properties: list[int]) -> None:
    node.mkdir(parents=True)
    (node / "compatible").write_bytes(compatible)
    for name, cells in properties.items():
        (node / name).write_bytes(b"".join(cell.to_bytes(4, "big") for cell in cells))


def labels() -> str:
    """Return the file in /etc/sensors.d that gives libsensors the rails' names."""
    lines = [f'bus "i2c-{bus}" "{adapter}"' for bus, adapter in _ADAPTERS.items()]
    for driver, address in sorted({(rail.driver, rail.address) for rail in _RAILS}):
        lines.append(f'chip "*-i2c-{_BUSES[address]}-{address:02x}"')
        ignored = ("in1", "curr1", "power1") if driver == "irps5401" else ("in0",)
        lines += [f"    ignore {feature}" for feature in ignored]
        for rail in _RAILS:
            if (rail.driver, rail.address) == (driver, address):
                lines += [f'    label {kind}{rail.channel} "{rail.name}"'
                          for kind in ("in", "curr", "power")]  # fmt: skip
    return "\n".join(lines) + "\n"


class Sensors:
    """The sensors of a running board, set from the host.

    Parameters
    ----------
    sysfs : the board's /sys as a local path
    """

    def __init__(self, sysfs: Path) -> None:
        self._sysfs = sysfs
        self._rails = {rail.name: rail for rail in _RAILS}

    def set_power(self, name: str, watts: float) -> None:
        """Set a rail's power, W, and the current for its present voltage."""
        hwmon, volts, number = _place(self._sysfs, self._rails[name])
        volts_now = float((hwmon / f"in{volts}_input").read_text()) * 1e-3
        _write(hwmon / f"curr{number}_input", round(1000 * watts / volts_now))
        _write(hwmon / f"power{number}_input", round(1e6 * watts))

    def set_load(self, cores: float, but: Collection[str] = ()) -> None:
        """Set the power of all rails, except those named, for a number of busy DPU cores."""
        for name, watts in _WATTS_PER_CORE.items():
            if name in but:
                continue
            hwmon, _, number = _place(self._sysfs, self._rails[name])
            _, milliamperes, microwatts = _IDLE[name]
            share = 1 + 1e6 * watts * cores / microwatts
            _write(hwmon / f"curr{number}_input", round(share * milliamperes))
            _write(hwmon / f"power{number}_input", round(share * microwatts))

    def set_reading(self, name: str, kind: str, value: int | None) -> None:
        """Set a single file of a rail, independent of the others; None removes it.

        `kind` is "in" (mV), "curr" (mA) or "power" (microwatts).
        """
        hwmon, volts, number = _place(self._sysfs, self._rails[name])
        path = hwmon / f"{kind}{volts if kind == 'in' else number}_input"
        path.unlink() if value is None else _write(path, value)

    def set_temperature(self, celsius: float) -> None:
        """Let the processor's sensor show so many degrees Celsius."""
        (hwmon,) = (self._sysfs / "devices/platform/axi/ffa50000.ams/hwmon").iterdir()
        _write(hwmon / "temp1_input", round(1000 * celsius))

    def remove(self) -> None:
        """Take all sensors away, as where their drivers are unbound."""
        for link in (self._sysfs / "class/hwmon").iterdir():
            hwmon = _target(link)
            device = hwmon.parent.parent
            for file in hwmon.glob("*_input"):
                os.truncate(file, 0)  # processes with the open file can no longer read it
            driver = device / "driver"
            (_target(driver) / device.name).unlink()
            driver.unlink()
            link.unlink()
            shutil.rmtree(hwmon.parent)


def _place(sysfs: Path, rail: RailProfile) -> tuple[Path, int, int]:
    """Return a rail's hwmon directory, the number of its voltage, and that of the others."""
    device = sysfs / f"devices/i2c-{_BUSES[rail.address]}/{_BUSES[rail.address]}-{rail.address:04x}"
    if (device / "hwmon").is_dir():
        (hwmon,) = (device / "hwmon").iterdir()
        return hwmon, rail.channel, rail.channel
    (hwmon,) = (sysfs / "devices/platform/ina226/hwmon").iterdir()
    return hwmon, 2, 1


def _take(sysfs: Path, device: Path, bus: str, name: str, driver: str) -> None:
    """Create a device with a bound driver."""
    device.mkdir(parents=True)
    (device / "name").write_text(f"{name}\n")
    _link(device / "subsystem", sysfs / f"bus/{bus}")
    _link(sysfs / f"bus/{bus}/devices/{device.name}", device)
    taken = sysfs / f"bus/{bus}/drivers/{driver}"
    _link(taken / device.name, device)
    _link(device / "driver", taken)


def _hwmon(sysfs: Path, device: Path, name: str, number: int) -> Path:
    """Create a device's hwmon directory; return it."""
    hwmon = device / f"hwmon/hwmon{number}"
    hwmon.mkdir(parents=True)
    (hwmon / "name").write_text(f"{name}\n")
    _link(hwmon / "device", device)
    _link(hwmon / "subsystem", sysfs / "class/hwmon")
    _link(sysfs / f"class/hwmon/hwmon{number}", hwmon)
    return hwmon


def _write_channel(hwmon: Path, volts: int, number: int, values: tuple[int, int, int]) -> None:
    for kind, value in zip((f"in{volts}", f"curr{number}", f"power{number}"), values, strict=True):
        _write(hwmon / f"{kind}_input", value)


def _write(path: Path, value: int) -> None:
    """Write a number in place, so that processes with the open file read it completely."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, f"{value:<{_DIGITS - 1}}\n".encode(), 0)
    finally:
        os.close(descriptor)


def _write_processor(cpu: Path) -> None:
    """Write the governor's files; other files in this folder are the machine's own."""
    own = Path("/sys/devices/system/cpu")
    policy = cpu / "cpufreq/policy0"
    policy.mkdir(parents=True)
    for name in ("online", "present", "possible", "offline", "kernel_max"):
        if (own / name).is_file():
            (cpu / name).write_text((own / name).read_text())
    values = {
        "scaling_governor": "performance", "scaling_driver": "cpufreq-dt",
        "scaling_available_governors": "ondemand performance",
        "scaling_available_frequencies": " ".join(map(str, _CPU_KHZ)),
        **dict.fromkeys(("cpuinfo_min_freq", "scaling_min_freq"), str(_CPU_KHZ[0])),
        **dict.fromkeys(("cpuinfo_max_freq", "scaling_max_freq", "cpuinfo_cur_freq",
                         "scaling_cur_freq"), str(_CPU_KHZ[-1])),
    }  # fmt: skip
    for name, value in values.items():
        (policy / name).write_text(f"{value}\n")
    for core in range(os.cpu_count() or 1):
        _link(cpu / f"cpu{core}/cpufreq", policy)
        topology = own / f"cpu{core}/topology"
        (cpu / f"cpu{core}/topology").mkdir()
        for file in topology.iterdir() if topology.is_dir() else ():
            (cpu / f"cpu{core}/topology" / file.name).write_text(file.read_text())


def _link(link: Path, target: Path) -> None:
    """Create a relative link, as in sysfs, which is also valid from outside the board."""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent))


def _target(link: Path) -> Path:
    """Return the target of a relative link; resolve() would leave the board through /proc."""
    return Path(os.path.normpath(link.parent / link.readlink()))
