"""The machine's state, read from trees of files like Linux's."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stand_in_board.sensors import Sensors, write_sensors
from tutelage.board import system
from tutelage.board.condition import Condition, ConditionWatch, concerns, wall_clock_step
from tutelage.core.results.run_json import Concern

TICKS = "cpu  {user} 0 {system} 1000 0 0 {softirq} {steal} 0 0\ncpu0 1 2 3\n"


def _reading(**changes: object) -> Condition:
    values: dict[str, object] = {
        "time_s": 0.0, "temperature_c": 50.0, "clock_mhz": 1200.0, "own_cores": 1.0,
        "other_cores": 0.0, "kernel_cores": 0.0, "stolen_cores": 0.0, "throttled": None,
        "wall_offset_s": 0.0,
    }  # fmt: skip
    return Condition(**{**values, **changes})  # type: ignore[arg-type]


def _names(*readings: Condition, limit: float | None = 100.0) -> list[str]:
    return [concern.name for concern in concerns(readings, limit, "performance", 1200.0)]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def _cpus(sysfs: Path, governor: str = "performance", khz: int = 1199999) -> None:
    for core in range(2):
        folder = sysfs / f"devices/system/cpu/cpu{core}/cpufreq"
        _write(folder / "scaling_governor", governor)
        _write(folder / "scaling_cur_freq", str(khz + core))
        _write(folder / "cpuinfo_max_freq", "1200000")


def test_a_machine_without_readings(tmp_path: Path) -> None:
    watch = ConditionWatch(tmp_path, tmp_path)
    reading = watch.read()
    assert watch.governor() is None and watch.highest_clock_mhz() is None
    assert reading.clock_mhz is reading.other_cores is reading.throttled is None
    assert concerns([reading], None, None, None) == [] == concerns([], 100.0, None, None)


def test_clocks_and_governor(tmp_path: Path) -> None:
    _cpus(tmp_path)
    watch = ConditionWatch(tmp_path, tmp_path)
    assert watch.governor() == "performance" and watch.highest_clock_mhz() == 1200.0
    assert watch.read().clock_mhz == 1199.999
    _write(tmp_path / "devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave")
    assert watch.governor() == "performance, powersave"


@pytest.mark.parametrize("kind", ["thermal-cpufreq-0", "cpufreq-cpu0", "Processor"])
def test_a_cooling_device_that_is_on_is_throttling(tmp_path: Path, kind: str) -> None:
    device = tmp_path / "class/thermal/cooling_device0"
    _write(device / "type", kind)
    _write(device / "cur_state", "0")
    _write(tmp_path / "class/thermal/cooling_device1/type", "pwm-fan")
    _write(tmp_path / "class/thermal/cooling_device1/cur_state", "3")  # a fan leaves clocks alone
    watch = ConditionWatch(tmp_path, tmp_path)
    assert watch.read().throttled is False
    _write(device / "cur_state", "2")
    assert watch.read().throttled is True


def test_an_x86_processor_counts_its_throttling(tmp_path: Path) -> None:
    path = tmp_path / "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    _write(path, "7")
    watch = ConditionWatch(tmp_path, tmp_path)
    assert watch.read().throttled is False  # earlier events do not count
    _write(path, "9")
    assert watch.read().throttled is True
    assert watch.read().throttled is False


def test_other_work_excludes_the_kernels(tmp_path: Path) -> None:
    """A DPU's driver runs in kernel threads and interrupts, which belong to no process."""
    _write(tmp_path / "stat", TICKS.format(user=1000, system=500, softirq=0, steal=10))
    watch = ConditionWatch(tmp_path, tmp_path)
    before = watch.read().time_s
    _write(tmp_path / "stat", TICKS.format(user=10_000, system=600, softirq=5000, steal=110))
    reading = watch.read()
    ticks_per_second = os.sysconf("SC_CLK_TCK") * (reading.time_s - before)
    assert reading.stolen_cores == pytest.approx(100 / ticks_per_second, rel=0.05)
    assert reading.other_cores == pytest.approx(9000 / ticks_per_second, rel=0.05)
    assert reading.kernel_cores == pytest.approx(5100 / ticks_per_second, rel=0.05)


@pytest.mark.parametrize("text", ["", "cpu", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8 9 10"])
def test_another_kernel_counter_says_nothing_of_others(tmp_path: Path, text: str) -> None:
    _write(tmp_path / "stat", text)
    reading = ConditionWatch(tmp_path, tmp_path).read()
    assert reading.other_cores is reading.kernel_cores is reading.stolen_cores is None
    assert reading.own_cores >= 0


def test_this_machine_sees_its_own_work_and_that_of_others() -> None:
    """The real /proc: this process spins, then another one does."""
    if not Path("/proc/stat").exists():
        pytest.skip("no Linux")
    watch = ConditionWatch()
    spun = _spin(watch, _burn)
    assert spun.own == pytest.approx(spun.process_time, abs=0.05) and spun.own > 0.45
    child = f"import time\n{inspect.getsource(_burn)}\n_burn()"
    waited = _spin(watch, lambda: subprocess.run([sys.executable, "-c", child], check=True))
    assert waited.own == pytest.approx(waited.process_time, abs=0.05)
    assert waited.other is not None and waited.other > 0.4


def _burn() -> None:
    """Use half a second of CPU time, however long that takes."""
    end = time.process_time() + 0.5
    while time.process_time() < end:
        sum(range(10_000))


class _Spent(NamedTuple):
    """Return CPU seconds during a call: of this process and others by the watch, and its own."""

    own: float
    other: float | None
    process_time: float


def _spin(watch: ConditionWatch, work: Callable[[], object]) -> _Spent:
    before, begun = watch.read(), time.process_time()
    work()
    after = watch.read()
    seconds = after.time_s - before.time_s
    other = None if after.other_cores is None else after.other_cores * seconds
    return _Spent(after.own_cores * seconds, other, time.process_time() - begun)


def test_the_temperature_is_that_of_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read from hwmon's files if psutil names a driver, or else from thermal zones."""
    write_sensors(tmp_path)
    found = {"ams": [45.0], "irps5401": [70.0]}
    monkeypatch.setattr(system, "_psutil_temperatures", found.copy)
    watch = ConditionWatch(tmp_path, tmp_path)
    assert watch.read().temperature_c == 45.0 and watch.temperature_source == "ams"
    Sensors(tmp_path).set_temperature(93.25)
    assert watch.read().temperature_c == 93.25
    Sensors(tmp_path).remove()
    found.clear()
    assert watch.read().temperature_c is None


def test_the_temperature_of_a_thermal_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_psutil_temperatures", dict)
    zone = tmp_path / "class/thermal/thermal_zone0"
    _write(zone / "type", "cpu-thermal")
    _write(zone / "temp", "51250")
    watch = ConditionWatch(tmp_path, tmp_path)
    assert watch.read().temperature_c == 51.25
    _write(zone / "temp", "-300000")  # not connected
    assert watch.read().temperature_c is None
    (zone / "temp").unlink()
    assert watch.read().temperature_c is None


def test_files_that_vanish_or_are_not_numbers_are_not_reported(tmp_path: Path) -> None:
    _cpus(tmp_path)
    watch = ConditionWatch(tmp_path, tmp_path)
    for core in range(2):
        (tmp_path / f"devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq").write_bytes(b"\xff")
    assert watch.read().clock_mhz is None
    shutil.rmtree(tmp_path / "devices")
    reading = watch.read()
    assert reading.clock_mhz is None and watch.governor() is None
    assert concerns([reading], 100.0, None, 1200.0) == []


def test_cpus_with_one_clock_are_read_once(tmp_path: Path) -> None:
    write_sensors(tmp_path)
    assert len(ConditionWatch(tmp_path, tmp_path)._clocks) == 1


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, ""),
        ({"temperature_c": 89.9}, ""),
        ({"temperature_c": 90.0}, "hot"),
        ({"temperature_c": None}, ""),
        ({"throttled": True}, "throttled"),
        ({"clock_mhz": 600.0}, "throttled"),
        ({"clock_mhz": 1199.999}, ""),
        ({"clock_mhz": 1141.0}, ""),
        ({"other_cores": 0.5}, "disturbed"),
        ({"other_cores": 0.15}, ""),
        ({"other_cores": None, "stolen_cores": None, "kernel_cores": None}, ""),
        ({"stolen_cores": 0.2}, "disturbed"),
        ({"kernel_cores": 0.9}, ""),
        ({"wall_offset_s": 3600.0}, "clock"),
        ({"wall_offset_s": -3600.0}, "clock"),
        ({"wall_offset_s": 0.4}, ""),
    ],
)
def test_concerns_about_figures(changes: dict[str, object], name: str) -> None:
    readings = _reading(), _reading(**changes), _reading(**changes)
    assert _names(*readings) == ([name] if name else [])


def test_work_of_the_kernel_is_that_of_others_while_this_process_rests() -> None:
    readings = [_reading(kernel_cores=0.3)] * 3
    assert concerns(readings, None, None, None, at_rest=False) == []
    (concern,) = concerns(readings, None, None, None, at_rest=True)
    assert concern == Concern("disturbed", "other processes took 0.30 cores")


def test_a_clock_that_was_set_and_set_back_was_set() -> None:
    readings = [_reading(), _reading(wall_offset_s=-3600.0), _reading(wall_offset_s=0.001)]
    assert _names(*readings) == ["clock"]
    assert wall_clock_step(readings) == -3600.0 and wall_clock_step([]) == 0.0


def test_a_processor_that_reports_throttling_may_run_below_its_highest_clock() -> None:
    """On a PC, the highest clock is that of one busy core, which several never reach."""
    assert _names(_reading(throttled=False, clock_mhz=900.0)) == []


@given(st.lists(st.floats(-1e5, 1e5), min_size=1), st.floats(-1e5, 1e5))
def test_only_steps_of_the_clock_count_not_where_it_was(offsets: list[float], more: float) -> None:
    step = wall_clock_step([_reading(wall_offset_s=offset) for offset in offsets])
    moved = wall_clock_step([_reading(wall_offset_s=offset + more) for offset in offsets])
    assert abs(step) == pytest.approx(max(abs(o - offsets[0]) for o in offsets))
    assert abs(moved) == pytest.approx(abs(step), abs=1e-6)


def test_no_limit_is_never_too_hot_and_another_governor_promises_no_clock() -> None:
    assert _names(_reading(temperature_c=120.0), limit=None) == []
    assert concerns([_reading(clock_mhz=300.0)], 100.0, "ondemand", 1200.0) == []
