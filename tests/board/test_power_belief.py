"""Detection of the 12V rail in every form of its monitor, and plausibility of its readings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.board.test_power import Clock, _inspect_all, _python_with_pynq
from tests.stand_in_board.sensors import INA226_FORMS, Sensors, labels, write_sensors
from tutelage.board.power import Power, PowerError, open_power
from tutelage.board.power.plausibility import NOTHING, POWER, PRODUCT, TIMES, Belief
from tutelage.core.board_profile import load_profile

PROFILE = load_profile("zcu104")
TWELVE = PROFILE.rails[0]
IDLE_PRODUCT = 12.113 * 1.159


@pytest.fixture(params=INA226_FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _opened(sysfs: Path) -> tuple[Power, Clock]:
    clock = Clock()
    return open_power("hwmon", sysfs=sysfs, clock=clock), clock


def _watts(power: Power) -> float | None:
    power.sample()
    return (power.latest() or {}).get("12V")


# ---- where it is --------------------------------------------------------------------------------


def test_12v_is_found_in_every_form(tmp_path: Path, form: str) -> None:
    write_sensors(tmp_path, form)
    power, clock = _opened(tmp_path)
    assert power.total_rail == "12V" and len(power.rails) == 10
    assert _watts(power) == pytest.approx(14.05)
    Sensors(tmp_path).set_power("12V", 17.5)
    _inspect_all(power, clock, 2)
    report = power.report(101, 102, 10)
    assert report["watts"] == pytest.approx(17.5) and report["doubts"] is None
    assert "not found" not in power.reason and "doubted" not in power.reason
    power.close()


def test_volts_are_the_rails_and_not_the_shunts(tmp_path: Path, form: str) -> None:
    """Without a power reading the product counts; 6 mV of the shunt would be visible."""
    write_sensors(tmp_path, form)
    Sensors(tmp_path).set_reading("12V", "power", None)
    power, _ = _opened(tmp_path)
    assert _watts(power) == pytest.approx(IDLE_PRODUCT)
    power.close()


def _platform(sysfs: Path) -> Path:
    (hwmon,) = (sysfs / "devices/platform/ina226/hwmon").iterdir()
    return hwmon


def test_the_device_tree_says_which_channel_is_which(tmp_path: Path) -> None:
    """Current first and shunt last: in1 is then the rail's voltage."""
    write_sensors(tmp_path, "iio-hwmon")
    hwmon = _platform(tmp_path)
    cells = [cell for channel in (3, 1, 2, 0) for cell in (0x37, channel)]
    (tmp_path / "firmware/devicetree/base/ina226/io-channels").write_bytes(
        b"".join(cell.to_bytes(4, "big") for cell in cells)
    )
    shunt, volts = (hwmon / "in1_input").read_text(), (hwmon / "in2_input").read_text()
    (hwmon / "in1_input").write_text(volts)
    (hwmon / "in2_input").write_text(shunt)
    (hwmon / "power1_input").write_text("0\n")
    power, _ = _opened(tmp_path)
    assert _watts(power) == pytest.approx(IDLE_PRODUCT)
    power.close()


def test_it_is_known_by_its_node_whatever_its_name(tmp_path: Path) -> None:
    write_sensors(tmp_path, "iio-hwmon")
    (_platform(tmp_path) / "name").write_text("power_monitor\n")
    power, _ = _opened(tmp_path)
    assert _watts(power) == pytest.approx(14.05)
    power.close()


def _strip(sysfs: Path) -> Path:
    """Remove the device tree; return the hwmon directory of the platform device."""
    (sysfs / "devices/platform/ina226/of_node").unlink()
    return _platform(sysfs)


def test_it_is_recognised_by_its_name_without_a_device_tree(tmp_path: Path) -> None:
    write_sensors(tmp_path, "iio-hwmon")
    (_strip(tmp_path) / "name").write_text("ina226_u183\n")
    Sensors(tmp_path).set_reading("12V", "power", 0)
    power, _ = _opened(tmp_path)
    assert _watts(power) == pytest.approx(IDLE_PRODUCT)
    power.close()


def test_two_of_one_name_are_not_guessed_at(tmp_path: Path) -> None:
    write_sensors(tmp_path, "iio-hwmon")
    hwmon = _strip(tmp_path)
    shutil.rmtree(tmp_path / "devices/i2c-5/5-0040")
    (tmp_path / "bus/i2c/devices/5-0040").unlink()
    (tmp_path / "class/hwmon/hwmon7").symlink_to(hwmon)
    power, _ = _opened(tmp_path)
    assert power.total_rail is None and "are both named ina226" in power.reason
    power.close()


@pytest.mark.parametrize("cells", [b"", b"\0\0\0", b"\0\0\0\x37\0\0\0\x09", b"\xff" * 4096])
def test_a_device_tree_that_makes_no_sense_is_not_followed(tmp_path: Path, cells: bytes) -> None:
    write_sensors(tmp_path, "iio-hwmon")
    (tmp_path / "firmware/devicetree/base/ina226/io-channels").write_bytes(cells)
    power, _ = _opened(tmp_path)
    assert _watts(power) == pytest.approx(14.05)  # by its name
    power.close()


def test_it_comes_back_under_another_number(tmp_path: Path) -> None:
    write_sensors(tmp_path, "iio-hwmon")
    power, clock = _opened(tmp_path)
    hwmon = _platform(tmp_path)
    (tmp_path / f"class/hwmon/{hwmon.name}").unlink()
    _inspect_all(power, clock, 3)
    assert "12V" not in (power.latest() or {})
    moved = hwmon.rename(hwmon.with_name("hwmon9"))
    (tmp_path / "class/hwmon/hwmon9").symlink_to(moved)
    _inspect_all(power, clock, 3)
    assert (power.latest() or {})["12V"] == pytest.approx(14.05)
    power.close()


def _unbound(sysfs: Path) -> None:
    Sensors(sysfs).remove()


def _without_iio_hwmon(sysfs: Path) -> None:
    shutil.rmtree(sysfs / "devices/platform/ina226")
    (sysfs / "class/hwmon/hwmon2").unlink()


def _without_device(sysfs: Path) -> None:
    _without_iio_hwmon(sysfs)
    (sysfs / "bus/i2c/devices/5-0040").unlink()


@pytest.mark.parametrize(
    ("form", "change", "said"),
    [
        ("ina226", _unbound, "no driver is bound to the ina226 at 0x40: load one, see "),
        ("iio-hwmon", _without_iio_hwmon, "ina2xx_adc, an IIO driver, is bound to the ina226 at "),
        ("iio-hwmon", _without_device, "no ina226 at 0x40 in "),
    ],
)
def test_a_missing_sensor_is_reported_with_a_remedy(
    tmp_path: Path, form: str, change: Callable[[Path], None], said: str
) -> None:
    write_sensors(tmp_path, form)
    change(tmp_path)
    try:
        power, _ = _opened(tmp_path)
    except PowerError as error:
        reason = str(error)
    else:
        reason = power.reason
        assert "not found: 12V (12V: " in reason and power.total_rail is None
        power.close()
    assert said in reason and "\n" not in reason


# ---- what is believed ---------------------------------------------------------------------------


def _only_doubt(power: Power) -> str:
    (doubt,) = power.doubts()
    assert doubt.text.startswith(f"{doubt.rail}: ") and "\n" not in doubt.text
    report = power.report(0, 1, 1)
    assert report["doubts"] == [{"rail": doubt.rail, "text": doubt.text}]
    assert doubt.text in power.reason
    return doubt.text


@pytest.mark.parametrize("microwatts", [0, 1_405_000, 7_025_000, 42_150_000])
def test_a_wrong_power_gives_way_to_volts_times_amperes(
    tmp_path: Path, form: str, microwatts: int
) -> None:
    write_sensors(tmp_path, form)
    Sensors(tmp_path).set_reading("12V", "power", microwatts)
    power, clock = _opened(tmp_path)
    _inspect_all(power, clock, 2)
    assert power.report(101, 102, 10)["joules"] == pytest.approx(IDLE_PRODUCT)
    text = _only_doubt(power)
    assert "ina226 at 0x40" in text and "power1_input" in text  # which sensor
    assert f"reads {microwatts * 1e-6:.4g} W (12.11 V x 1.159 A is 14.04 W)" in text
    assert "the product is used" in text and "5000 microohms" in text  # the advice
    power.close()


@pytest.mark.parametrize("microwatts", [0, 14_050_000])
def test_without_a_believable_product_nothing_is_measured(
    tmp_path: Path, form: str, microwatts: int
) -> None:
    """With a calibration register of 0, the INA226 reads 0 A and 0 W."""
    write_sensors(tmp_path, form)
    sensors = Sensors(tmp_path)
    sensors.set_reading("12V", "curr", 0)
    sensors.set_reading("12V", "power", microwatts)
    power, clock = _opened(tmp_path)
    _inspect_all(power, clock, 2)
    report = power.report(101, 102, 10)
    assert report["joules"] is None and report["watts"] is None
    assert report["rails"]["INT"]["joules"] is not None
    text = _only_doubt(power)
    assert "at least 8.4 W are expected (14.05 W at rest, as published)" in text
    assert "the rail is not measured" in text
    power.close()


def test_a_zero_without_volts_and_amperes_is_not_a_power_either(tmp_path: Path) -> None:
    write_sensors(tmp_path)
    sensors = Sensors(tmp_path)
    for kind in ("in", "curr"):
        sensors.set_reading("12V", kind, None)
    sensors.set_reading("12V", "power", 0)
    power, clock = _opened(tmp_path)
    _inspect_all(power, clock, 2)
    assert power.report(101, 102, 10)["joules"] is None
    assert " reads 0 W; at least 8.4 W" in _only_doubt(power)
    power.close()


def test_less_than_the_published_idle_is_used_and_doubted(tmp_path: Path) -> None:
    write_sensors(tmp_path)
    Sensors(tmp_path).set_power("12V", 11.0)
    power, clock = _opened(tmp_path)
    _inspect_all(power, clock, 2)
    assert power.report(101, 102, 10)["watts"] == pytest.approx(11.0)
    doubt = _only_doubt(power)
    assert "the board takes 14.05 W at rest, as published: the reading is used anyway" in doubt
    power.close()


@pytest.mark.parametrize("form", ["ina226", "iio-hwmon"])
def test_a_wrong_shunt_is_not_a_measurement(tmp_path: Path, form: str) -> None:
    """The drivers' default is 10 milliohms; V, A and W then agree with each other."""
    write_sensors(tmp_path, form)
    Sensors(tmp_path).set_power("12V", 9.5)
    device = tmp_path / "devices/i2c-5/5-0040"
    for path, text in (("hwmon/hwmon2/shunt_resistor", "10000\n"),
                       ("iio:device0/in_shunt_resistor", "0.010000000\n")):  # fmt: skip
        if (device / path).exists():
            (device / path).write_text(text)
    power, clock = _opened(tmp_path)
    _inspect_all(power, clock, 2)
    assert power.report(101, 102, 10)["joules"] is None
    assert "assumes a shunt of 10000 microohms, the board's has 5000" in _only_doubt(power)
    power.close()


def test_a_power_that_fails_under_way_gives_no_joules_of_its_zeros(tmp_path: Path) -> None:
    write_sensors(tmp_path)
    sensors = Sensors(tmp_path)
    sensors.set_power("12V", 16.0)
    power, clock = _opened(tmp_path)
    _inspect_all(power, clock, 5)
    assert power.doubts() == []
    sensors.set_reading("12V", "power", 0)
    _inspect_all(power, clock, 5)
    before, after = power.energy(101, 105)["12V"], power.energy(108, 110)["12V"]
    assert before.joules == pytest.approx(64) and before.mean_w == pytest.approx(16)
    # From then on the product; the time in between has no readings rather than 0 W.
    assert after.joules == pytest.approx(32, rel=1e-3)
    whole = power.energy(101, 110)["12V"]
    assert whole.mean_w == pytest.approx(16, rel=1e-3) and whole.flagged > 0
    assert "the product is used" in _only_doubt(power)
    sensors.set_power("12V", 18.0)  # the driver was loaded again
    _inspect_all(power, clock, 5)
    assert power.report(clock.now - 2, clock.now, 1)["watts"] == pytest.approx(18)
    assert len(power.doubts()) == 1  # it stays in the record
    power.close()


def test_other_rails_are_judged_too_but_for_nonsense_amperes(tmp_path: Path) -> None:
    write_sensors(tmp_path)
    sensors = Sensors(tmp_path)
    sensors.set_reading("INT", "power", 0)
    sensors.set_reading("FMC", "power", 0)  # 0.156 V is not a rail of this board
    power, clock = _opened(tmp_path)
    _inspect_all(power, clock, 8)
    rails = power.report(101, 107, 1)["rails"]
    assert rails["INT"]["mean_w"] == pytest.approx(0.851 * 4.375)
    assert rails["FMC"]["mean_w"] == 0 and rails["5V0"]["mean_w"] == 0
    assert _only_doubt(power).startswith("INT: irps5401 at 0x43 (")
    power.close()


@given(st.floats(11.4, 12.6), st.floats(1.2, 5), st.floats(-1, 1))
def test_readings_that_agree_are_never_doubted(volts: float, amps: float, error: float) -> None:
    belief = Belief(PROFILE, TWELVE, "a sensor", 0.005)
    reading = volts * amps + error * TWELVE.step_watts
    for _ in range(TIMES):
        assert not belief.look(volts, amps, [reading, reading])
    assert belief.basis == POWER and belief.doubts == []


@given(st.floats(11.4, 12.6), st.floats(1.2, 5), st.floats(0, 60))
def test_a_power_far_from_the_product_is_never_believed(
    volts: float, amps: float, watts: float
) -> None:
    belief, product = Belief(PROFILE, TWELVE, "a sensor"), volts * amps
    for _ in range(TIMES):
        belief.look(volts, amps, [watts, watts])
    if abs(watts - product) > 0.25 * product:
        assert belief.basis == PRODUCT and len(belief.doubts) == 1
    assert watts >= TWELVE.least_watts or belief.basis == PRODUCT


@given(st.floats(0, 20), st.floats(0, 20), st.floats(0, 8.3))
def test_less_than_the_board_can_take_is_never_a_measurement(
    volts: float, amps: float, watts: float
) -> None:
    belief = Belief(PROFILE, TWELVE, "a sensor")
    for _ in range(TIMES):
        belief.look(volts, amps, [watts, watts])
    assert belief.basis == NOTHING or (belief.basis == PRODUCT and volts * amps >= 8.4)


def test_a_change_between_two_readings_is_not_a_finding() -> None:
    belief = Belief(PROFILE, TWELVE, "a sensor")
    for _ in range(10):
        belief.look(12.0, 1.7, [14.0, 20.4])  # the load changed in between
        belief.look(12.0, 1.2, [20.4, 20.4])  # twice at most in a row
        belief.look(12.0, 1.2, [20.4, 20.4])
        belief.look(12.0, 1.2, [14.4, 14.4])
    assert belief.basis == POWER and belief.doubts == []


def test_a_board_without_figures_of_its_own_doubts_no_idle() -> None:
    rail = replace(TWELVE, least_watts=0.0, shunt_ohms=None)
    belief = Belief(replace(PROFILE, idle_watts=None), rail, "a sensor", 0.01)
    for _ in range(TIMES):
        belief.look(12.0, 0.1, [1.2, 1.2])
    assert belief.basis == POWER and belief.doubts == []


# ---- the real pynq ------------------------------------------------------------------------------

IN_THE_SENSORS = """
import json, sys
from pathlib import Path
from tutelage.board.power import open_power

out = {}
for name in ("pmbus", "auto"):
    power = open_power(name)
    power.sample()
    out[name] = [power.source, power.reason, power.total_rail, power.latest()["12V"]]
    power.close()
print(json.dumps(out))
"""

_MOUNTED = """
set -e
for d in class bus devices firmware; do mount --bind "$1/sys/$d" /sys/$d; done
mkdir -p /etc/sensors.d; mount --bind "$1/etc" /etc/sensors.d
exec "$2" -c "$3"
"""


@pytest.mark.parametrize("form", INA226_FORMS)
def test_the_real_pynq_and_rails_without_a_name(tmp_path: Path, repo_root: Path, form: str) -> None:
    """PYNQ's configuration names the chip at i2c-5 0x40, which iio-hwmon's device is not."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root and unshare")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("this machine gives no mount namespace")
    python = _python_with_pynq(repo_root)
    sysfs, etc = tmp_path / "sys", tmp_path / "etc"
    write_sensors(sysfs, form)
    etc.mkdir()
    (etc / "zcu104.conf").write_text(labels())
    command = ["unshare", "--mount", "sh", "-c", _MOUNTED, "sh", str(tmp_path), python,
               IN_THE_SENSORS]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    for source, reason, total, watts in json.loads(done.stdout).values():
        assert (source, total) == ("pmbus", "12V") and watts == pytest.approx(14.05)
        assert reason.startswith("10 rails of the ZCU104 that pynq.pmbus finds")
        named = "12V, which pynq does not name, from /sys/class/hwmon/hwmon2" in reason
        assert named == (form == "iio-hwmon")
