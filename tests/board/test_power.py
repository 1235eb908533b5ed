"""The sampler with trees of files like Linux's, the real pynq, and powers given as functions."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.board.power import Power, PowerError, open_power
from tutelage.board.power.figures import Idle
from tutelage.board.power.sources.registry import source_names
from tutelage.board.power.sources.source import PowerSource, Rail
from tutelage.core.board_profile import RailProfile, load_profile

MONITORS = {"irps5401", "ina226"}
# Idle figures of PYNQ's notebook zcu104_pmbus.ipynb: W, and FMC's current in A.
IDLE_WATTS = {
    "12V": 14.05,
    "INT": 3.5,
    "1V8": 0.5625,
    "1V2": 0.28125,
    "MGTA": 0.109375,
    "3V3": 2.0,
    "1V13": 0.21875,
    "5V0": 0.0,
    "FMC": 0.03125,
    "MGTRA": 0.03125,
}
FMC_AMPS = 10.187


class Clock:
    """A clock that advances only on request."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Scripted(PowerSource):
    """One rail (or counter) whose readings are a function of the clock."""

    name = "scripted"

    def __init__(self, clock: Clock, value: Callable[[float], float], rail: Rail, counts: bool):
        super().__init__("scripted", [rail], rail.name)
        self.counts_energy = counts
        self._clock, self._value = clock, value

    def read(self) -> list[float]:
        return [self._value(self._clock.now)]


def _scripted(
    value: Callable[[float], float],
    step: float = 0.0,
    counts: bool = False,
    history_seconds: float = 600.0,
    max_watts: float = 100.0,
) -> tuple[Power, Clock]:
    clock = Clock()
    source = Scripted(clock, value, Rail("12V", step, max_watts), counts)
    return Power(source, 50.0, clock, history_seconds), clock


def _sample_at(power: Power, clock: Clock, times: Iterator[float] | list[float]) -> None:
    for clock.now in times:
        power.sample()


class SlowBus(PowerSource):
    """A board's ten rails, each of which takes time to read."""

    name = "slow"
    one_by_one = True

    def __init__(self, clock: Clock, watts: Callable[[float], float], total: float, side: float):
        rails = [Rail(name, 0.125, 100.0) for name in IDLE_WATTS]
        super().__init__("slow", rails, "12V")
        self._clock, self._watts, self._seconds = clock, watts, [total, *[side] * 9]

    def read_rail(self, index: int) -> float:
        self._clock.now += self._seconds[index] / 2
        watts = self._watts(self._clock.now)
        self._clock.now += self._seconds[index] / 2
        return watts


def _sample_slowly(
    watts: Callable[[float], float], total: float = 0.0, side: float = 0.0, seconds: float = 10.0
) -> Power:
    """Sample at 50 Hz from 100 s on, as the thread does; a reading takes some seconds."""
    clock = Clock()
    power = Power(SlowBus(clock, watts, total, side), 50.0, clock)
    power.sample()
    for tick in range(1, int(seconds * 50)):
        due = 100 + tick / 50
        if clock.now <= due:
            clock.now = due
            power._sample(due, everything=False)
    clock.now = 100 + seconds
    power.sample()
    return power


def _hwmon_tree(root: Path, rails: tuple[RailProfile, ...] | None = None) -> Path:
    """Create class/hwmon for the board's chips as its drivers do, plus an unrelated chip."""
    hwmon = root / "class" / "hwmon"
    hwmon.mkdir(parents=True)
    chips: dict[tuple[str, int], Path] = {}
    for rail in load_profile("zcu104").rails if rails is None else rails:
        key = rail.driver, rail.address
        if key not in chips:
            chips[key] = _add_chip(root, len(chips), f"4-{rail.address:04x}", rail.driver)
        _write_rail(chips[key], rail.channel, IDLE_WATTS[rail.name], amps=0.5)
    _add_chip(root, 9, "soc:nvme", "nvme")
    return hwmon


def _add_chip(root: Path, number: int, device: str, driver: str) -> Path:
    chip = root / "class" / "hwmon" / f"hwmon{number}"
    chip.mkdir()
    (root / "devices" / device).mkdir(parents=True)
    (chip / "device").symlink_to(root / "devices" / device)
    (chip / "name").write_text(driver + "\n")
    return chip


def _write_rail(chip: Path, channel: int, watts: float, amps: float) -> None:
    (chip / f"power{channel}_input").write_text(f"{round(watts * 1e6)}\n")
    (chip / f"curr{channel}_input").write_text(f"{round(amps * 1e3)}\n")
    (chip / f"in{channel}_input").write_text("1000\n")


def _zone(root: Path, name: str, label: str, microjoules: int, span: int = 10**9) -> Path:
    zone = root / "class" / "powercap" / name
    zone.mkdir(parents=True)
    (zone / "name").write_text(label + "\n")
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    (zone / "max_energy_range_uj").write_text(f"{span}\n")
    return zone


# ---- energy -------------------------------------------------------------------------------------


@st.composite
def _curves(draw: st.DrawFn) -> tuple[list[float], list[float], float, float]:
    """Times and watts of the vertices of a power curve, and a window inside."""
    steps = draw(st.lists(st.floats(0.01, 0.5), min_size=1, max_size=30))
    times = [float(t) for t in np.concatenate(([100.0], 100.0 + np.cumsum(steps)))]
    watts = draw(st.lists(st.floats(0, 90), min_size=len(times), max_size=len(times)))
    ends = sorted(draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
    start, end = (100.0 + share * (times[-1] - 100.0) for share in ends)
    return times, watts, start, end


def _integral(times: list[float], watts: list[float], start: float, end: float) -> float:
    """The exact integral of a piecewise linear function."""
    corners = [start, *[t for t in times if start < t < end], end]
    values = np.interp(corners, times, watts)
    return float(np.sum((values[1:] + values[:-1]) / 2 * np.diff(corners)))


@given(_curves())
def test_energy_of_a_piecewise_linear_power_is_its_integral(
    curve: tuple[list[float], list[float], float, float],
) -> None:
    times, watts, start, end = curve
    power, clock = _scripted(lambda now: float(np.interp(now, times, watts)))
    _sample_at(power, clock, times)
    joules = power.energy(start, end)["12V"].joules
    if end - start < 1e-6:
        assert joules is None or joules < 1e-3
    else:
        assert joules == pytest.approx(_integral(times, watts, start, end), rel=1e-6, abs=1e-6)


@given(st.integers(0, 400), st.floats(1, 60))
def test_a_wrapped_ring_loses_no_energy(more: int, watts: float) -> None:
    """A window of the whole run, of which only the last second is kept sample by sample."""
    power, clock = _scripted(lambda now: watts + 10 * math.sin(now) ** 2, history_seconds=1.0)
    times = [100 + n / 50 for n in range(100 + more)]
    _sample_at(power, clock, times)
    curve = [watts + 10 * math.sin(t) ** 2 for t in times]
    figures = power.energy(times[0], times[-1])["12V"]
    assert figures.joules == pytest.approx(_integral(times, curve, times[0], times[-1]))
    assert figures.max_w == pytest.approx(max(curve))
    assert len(power.rows()[1]) == 52


def test_old_windows_are_exact_to_the_second() -> None:
    power, clock = _scripted(lambda now: now - 100, history_seconds=1.0)
    _sample_at(power, clock, [100 + n / 50 for n in range(2001)])
    joules = power.energy(105.5, 139.9)["12V"].joules
    assert joules == pytest.approx((39.9**2 - 5.5**2) / 2, abs=0.3)


@given(st.floats(0, 40), st.sampled_from([round, math.floor]), st.floats(0.025, 0.125))
def test_the_error_bar_covers_the_steps(
    watts: float, rounding: Callable[[float], int], step: float
) -> None:
    power, clock = _scripted(lambda now: rounding((watts + now % 1) / step) * step, step=step)
    times = [100 + n / 50 for n in range(101)]
    _sample_at(power, clock, times)
    true = _integral(times, [watts + t % 1 for t in times], 100, 102)
    figures = power.energy(100, 102)["12V"]
    assert figures.joules is not None and figures.error_joules is not None
    assert abs(figures.joules - true) <= figures.error_joules + 1e-9
    assert figures.error_joules <= 2.001 * step


def test_nonsense_is_flagged_and_filled_with_the_mean() -> None:
    bad = {10: math.nan, 20: -1.0, 30: 1e6, 31: math.inf}
    power, clock = _scripted(lambda now: bad.get(round((now - 100) * 50), 12.0))
    _sample_at(power, clock, [100 + n / 50 for n in range(501)])
    figures = power.energy(100, 110)["12V"]
    assert figures.flagged == 4
    assert power.flags()["12V"] == {"unreadable": 2, "implausible": 2, "current": 0}
    assert figures.joules == pytest.approx(120)
    assert figures.error_joules == pytest.approx(12 * 7 / 50)  # steps with a bad end
    assert figures.max_w == 12.0
    names, rows = power.rows()
    assert names == ("time_s", "12V")
    assert np.isnan(rows[:, 1]).sum() == 4


def test_too_much_darkness_is_not_measured() -> None:
    power, clock = _scripted(lambda now: 12.0 if now < 109 else math.nan)
    _sample_at(power, clock, [100 + n / 50 for n in range(501)])
    figures = power.energy(100, 110)["12V"]
    assert figures.joules is None and figures.error_joules is None
    assert figures.mean_w == pytest.approx(12.0)
    report = power.report(100, 110, 5)
    assert report["joules_per_frame"] is None and report["watts"] == pytest.approx(12.0)
    assert power.latest() == {}


def test_a_process_that_slept_does_not_know_its_energy() -> None:
    power, clock = _scripted(lambda now: 12.0)
    _sample_at(power, clock, [100, 100.02, 130, 130.02])
    assert power.energy(100, 130.02)["12V"].joules is None


@pytest.mark.parametrize("window", [(90, 95), (120, 130), (101, 101), (102, 101)])
def test_nothing_is_known_outside_of_the_record(window: tuple[float, float]) -> None:
    power, clock = _scripted(lambda now: 12.0)
    _sample_at(power, clock, [100 + n / 50 for n in range(101)])
    figures = power.energy(*window)["12V"]
    assert figures.joules is None and figures.mean_w is None
    json.dumps(power.report(*window, frames=0))


def test_report_gives_energy_per_frame_above_idle_and_not() -> None:
    power, clock = _scripted(lambda now: 20.0, step=0.025)
    _sample_at(power, clock, [100 + n / 50 for n in range(101)])
    report = power.report(100, 102, frames=10, idle={"12V": Idle(14.0, 0.1)})
    assert report["watts"] == pytest.approx(20)
    assert report["joules"] == pytest.approx(40)
    assert report["error_joules"] == pytest.approx(0.05)
    assert report["joules_per_frame"] == pytest.approx(4)
    assert report["joules_per_frame_above_idle"] == pytest.approx(1.2)
    assert (report["samples"], report["missed"]) == (101, 0)
    assert report["rate_hz"] == pytest.approx(50)
    assert report["jitter_ms"] == {"p50": 0, "p99": 0, "max": 0}
    assert power.report(100, 102, frames=10)["joules_per_frame_above_idle"] is None


@pytest.mark.parametrize(
    ("total", "side", "rate"),
    [(0.001, 0.001, 100 / 9), (0.001, 0.012, 50 / 9), (0.011, 0.002, 10 / 9)],
)
def test_a_slow_bus_lowers_the_rate_of_the_side_rails_only(
    total: float, side: float, rate: float
) -> None:
    power = _sample_slowly(lambda now: 12.0, total, side, seconds=30)
    rails = power.energy(101, 129)
    assert rails["12V"].rate_hz == pytest.approx(50, rel=0.02)
    for name in power.rails[1:]:
        assert rails[name].rate_hz == pytest.approx(rate, rel=0.1)
        assert rails[name].joules == pytest.approx(12 * 28)


@given(st.floats(0.05, 5), st.floats(0, 10))
def test_the_error_bar_covers_the_time_between_alternating_readings(
    period: float, shift: float
) -> None:
    """A power that jumps rarely: between two readings it equals one or the other."""
    low, high = 2.0, 8.0
    half = 0.2 + period / 2

    def watts(now: float) -> float:
        return high if (now + shift) % (2 * half) < half else low

    power = _sample_slowly(watts, seconds=4)
    start, end = 100.13, 103.71
    grid = np.linspace(start, end, 200_001)
    true = float(np.mean([watts(t) for t in grid[::20]])) * (end - start)
    figures = power.energy(start, end)
    for name in power.rails[1:]:
        rail = figures[name]
        assert rail.joules is not None and rail.error_joules is not None
        assert abs(rail.joules - true) <= rail.error_joules + 0.01
        assert rail.error_joules > 0.125 * (end - start)


def test_readings_in_turn_are_exact_where_the_power_is_linear() -> None:
    power = _sample_slowly(lambda now: now - 95, total=0.001, side=0.003)
    for name, rail in power.energy(102.03, 107.91).items():
        assert rail.joules == pytest.approx((12.91**2 - 7.03**2) / 2), name


def test_rows_of_a_window_are_those_of_all_rows() -> None:
    power = _sample_slowly(lambda now: now - 95, side=0.001)
    names, every = power.rows()
    assert names == ("time_s", *IDLE_WATTS) and every.dtype == np.float64
    assert not np.isnan(every).any()  # the first sample reads all rails
    inside = (every[:, 0] >= 103) & (every[:, 0] <= 105)
    window = power.rows(103, 105)[1]
    assert len(window) == 101
    np.testing.assert_array_equal(window, every[inside])
    # No rail's reading is older than its turn, and none comes early.
    age = window[:, :1] - 95 - window[:, 1:]
    assert age.max() < 0.12 and age.min() > -0.02
    assert power.rows(200, 300)[1].shape == (0, 11)


def test_rows_of_a_window_cross_the_end_of_the_ring() -> None:
    power, clock = _scripted(lambda now: now, history_seconds=2.0)
    _sample_at(power, clock, [100 + n / 50 for n in range(150)])
    every = power.rows()[1]
    assert len(every) == 102 and every[-1, 0] == pytest.approx(102.98)
    for start, end in ((101, 101.5), (101.5, 102.5), (102.5, 110), (0, 200)):
        inside = (every[:, 0] >= start) & (every[:, 0] <= end)
        np.testing.assert_array_equal(power.rows(start, end)[1], every[inside])


def test_a_window_costs_less_than_a_millisecond() -> None:
    """Twenty parts of a step, with every ring full: for confidence intervals."""
    power = _sample_slowly(lambda now: 12.0, seconds=660)
    edges = np.linspace(200, 650, 21)
    costs = []
    for _ in range(5):
        begin = time.thread_time()
        for start, end in pairwise(edges):
            power.energy(start, end)
        costs.append((time.thread_time() - begin) / 20)
    assert min(costs) < 1e-3


# ---- hwmon --------------------------------------------------------------------------------------


@contextmanager
def _running(power: Power) -> Iterator[Power]:
    power.start()
    try:
        yield power
    finally:
        power.close()


def test_hwmon_reads_the_rails_of_the_profile(tmp_path: Path) -> None:
    _hwmon_tree(tmp_path)
    with _running(open_power("hwmon", sysfs=tmp_path)) as power:
        assert power.total_rail == "12V"
        assert power.latest() == pytest.approx(IDLE_WATTS)
        assert "10 rails of the ZCU104" in power.reason


def test_hwmon_follows_changes_and_survives_broken_sensors(tmp_path: Path) -> None:
    hwmon = _hwmon_tree(tmp_path)
    twelve = next(p for p in hwmon.iterdir() if (p / "name").read_text() == "ina226\n")
    fmc = next(p for p in hwmon.iterdir() if (p / "power6_input").exists())
    _write_rail(fmc, 5, IDLE_WATTS["FMC"], amps=FMC_AMPS)
    with _running(open_power("hwmon", sysfs=tmp_path, rate_hz=200)) as power:
        power._inspect_every = 1
        idle = power.measure_idle(0.3)
        assert idle["12V"].mean_w == pytest.approx(14.05) and idle["12V"].spread_w < 1e-9
        (fmc / "power2_input").write_text("garbage\n")
        _write_rail(twelve, 1, 20.0, amps=1.6)
        start = time.monotonic()
        time.sleep(0.4)
        end = time.monotonic()
        report = power.report(start, end, 4, idle)
    rails = report["rails"]
    assert report["watts"] == pytest.approx(20.0, rel=0.05)
    assert report["joules"] == pytest.approx(20 * (end - start), rel=0.05)
    assert rails["3V3"]["flagged"] > 3 and rails["3V3"]["joules"] is None
    assert rails["INT"]["flagged"] == 0 and rails["INT"]["joules"] is not None
    assert rails["FMC"]["flagged"] > 0 and power.flags()["FMC"]["current"] > 0
    assert report["joules_per_frame_above_idle"] < report["joules_per_frame"]


def test_hwmon_derives_power_and_names_missing_rails(tmp_path: Path) -> None:
    rails = load_profile("zcu104").rails[:3]
    hwmon = _hwmon_tree(tmp_path, rails)
    twelve = next(p for p in hwmon.iterdir() if (p / "name").read_text() == "ina226\n")
    (twelve / "power1_input").unlink()
    (twelve / "in1_input").write_text("12000\n")
    (twelve / "curr1_input").write_text("1500\n")
    with _running(open_power("auto", sysfs=tmp_path)) as power:
        if power.source == "pmbus":
            pytest.skip("this machine has the board's rails")
        assert power.source == "hwmon"
        assert (power.latest() or {})["12V"] == pytest.approx(18)
        assert "not found: 1V2 MGTA" in power.reason and "not available: pmbus: " in power.reason


def test_hwmon_without_the_total_has_no_total(tmp_path: Path) -> None:
    _hwmon_tree(tmp_path, load_profile("zcu104").rails[1:])
    with _running(open_power("hwmon", sysfs=tmp_path)) as power:
        report = power.report(0, 1, 1)
    assert report["total_rail"] is None and report["watts"] is None and len(report["rails"]) == 9


def test_the_schedule_is_kept_and_misses_are_counted(tmp_path: Path) -> None:
    _hwmon_tree(tmp_path)
    power = open_power("hwmon", sysfs=tmp_path, rate_hz=100)
    slow = threading.Event()
    read = power._source.read_rail

    def read_slowly(index: int) -> float:
        if slow.is_set():
            slow.clear()
            time.sleep(0.2)
        return read(index)

    power._source.read_rail = read_slowly  # type: ignore[method-assign]
    with _running(power):
        start = time.monotonic()
        time.sleep(0.1)
        slow.set()
        time.sleep(0.5)
        report = power.report(start, time.monotonic(), 1)
    assert report["missed"] >= 15
    # Absolute times: taken and missed samples together give the rate.
    assert report["samples"] + report["missed"] == pytest.approx(60, abs=12)
    assert set(report["jitter_ms"]) == {"p50", "p99", "max"}


def test_stop_and_start_again(tmp_path: Path) -> None:
    _hwmon_tree(tmp_path)
    power = open_power("hwmon", sysfs=tmp_path)
    assert power.latest() is None
    start = time.monotonic()
    power.stop()  # never started
    power.start()
    power.start()
    assert sum(t.name == "power" for t in threading.enumerate()) == 1
    time.sleep(0.1)
    power.stop()
    count = len(power.rows()[1])
    time.sleep(0.05)
    assert len(power.rows()[1]) == count
    assert not any(t.name == "power" for t in threading.enumerate())
    power.start()
    power.close()
    power.close()
    assert power.report(start, time.monotonic(), 1)["joules"] is not None


def test_memory_does_not_grow_with_the_run() -> None:
    power, clock = _scripted(lambda now: 12.0, history_seconds=10)
    record = power._meters[0].record
    before = record.nbytes
    _sample_at(power, clock, [100 + n / 50 for n in range(20_000)])
    assert record.nbytes == before
    assert len(record) == 502 and not power._pending


@contextmanager
def _kernel_file(number: int) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A kernel file with a number; reading it fails once its process is gone."""
    process = subprocess.Popen(["sleep", "60"])
    path = Path(f"/proc/{process.pid}/timerslack_ns")
    try:
        try:
            path.write_text(str(number))
        except OSError as error:
            pytest.skip(f"needs root: {error}")
        yield path, process
    finally:
        process.kill()
        process.wait()


def _inspect_all(power: Power, clock: Clock, seconds: float) -> None:
    """Sample for a time at 50 Hz, with an inspection every fifth of a second."""
    until = clock.now + seconds
    while clock.now < until:
        clock.now += 0.02
        power.sample()


def test_a_sensor_that_vanishes_comes_back_under_another_number(tmp_path: Path) -> None:
    hwmon = _hwmon_tree(tmp_path)
    twelve = next(p for p in hwmon.iterdir() if (p / "name").read_text() == "ina226\n")
    device = (twelve / "device").resolve()
    clock = Clock()
    with _kernel_file(14_050_000) as (path, process):
        (twelve / "power1_input").unlink()
        (twelve / "power1_input").symlink_to(path)
        power = open_power("hwmon", sysfs=tmp_path, clock=clock)
        _inspect_all(power, clock, 1)
        assert (power.latest() or {})["12V"] == pytest.approx(14.05)
        process.kill()
        process.wait()
        _inspect_all(power, clock, 0.1)  # the kernel reports immediately: no such process
        assert "12V" not in (power.latest() or {})
    shutil.rmtree(twelve)
    _inspect_all(power, clock, 3)
    gone = power.energy(101, clock.now)["12V"]
    assert gone.joules is None and gone.flagged > 100
    assert power.energy(101, clock.now)["INT"].joules is not None
    shutil.copytree(hwmon / "hwmon1", hwmon / "hwmon0", symlinks=True)  # another chip by now
    back = hwmon / "hwmon77"
    back.mkdir()
    (back / "name").write_text("ina226\n")
    (back / "device").symlink_to(device)
    _write_rail(back, 1, 16.0, amps=1.0)
    _inspect_all(power, clock, 3)
    assert (power.latest() or {})["12V"] == pytest.approx(16)
    assert power.energy(clock.now - 1, clock.now)["12V"].joules == pytest.approx(16)
    power.close()


def test_a_replaced_file_is_opened_again(tmp_path: Path) -> None:
    """Here the old file stays readable, and would repeat its last value."""
    hwmon = _hwmon_tree(tmp_path)
    twelve = next(p for p in hwmon.iterdir() if (p / "name").read_text() == "ina226\n")
    clock = Clock()
    power = open_power("hwmon", sysfs=tmp_path, clock=clock)
    (twelve / "power1_input").unlink()
    _inspect_all(power, clock, 3)
    assert "12V" not in (power.latest() or {})
    _write_rail(twelve, 1, 17.0, amps=1.0)
    _inspect_all(power, clock, 3)
    assert (power.latest() or {})["12V"] == pytest.approx(17)
    power.close()


def test_a_bus_error_is_a_missing_reading(tmp_path: Path) -> None:
    hwmon = _hwmon_tree(tmp_path)
    twelve = next(p for p in hwmon.iterdir() if (p / "name").read_text() == "ina226\n")
    (twelve / "power1_input").unlink()
    (twelve / "power1_input").symlink_to("/proc/self/mem")  # EIO at its beginning
    with Path("/proc/self/mem").open("rb") as memory, pytest.raises(OSError, match="Errno 5"):
        os.pread(memory.fileno(), 64, 0)
    with _running(open_power("hwmon", sysfs=tmp_path, rate_hz=200)) as power:
        start = time.monotonic()
        time.sleep(0.2)
        figures = power.energy(start, time.monotonic())
        assert power._thread is not None and power._thread.is_alive()
    assert figures["12V"].joules is None and figures["12V"].flagged > 10
    assert figures["INT"].joules is not None


def test_a_file_that_contradicts_pynq_is_abandoned(tmp_path: Path) -> None:
    _hwmon_tree(tmp_path)
    clock = Clock()
    power = open_power("hwmon", sysfs=tmp_path, clock=clock)
    source: Any = power._source
    for sensors in source._sensors:
        sensors.watts.by_pynq = sensors.watts.file
    _inspect_all(power, clock, 60)
    assert "since its file differs" not in power.reason
    source._sensors[2].watts.by_pynq = lambda: 1.0
    _inspect_all(power, clock, 60)
    assert power.reason.endswith(f"; {power.rails[2]} through pynq, since its file differs from it")
    assert (power.latest() or {})[power.rails[2]] == 1.0
    power.close()


def test_the_wall_clock_has_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _hwmon_tree(tmp_path)
    wall = iter(range(0, 10**15, 10**8))  # years between any two checks
    monkeypatch.setattr(time, "time", lambda: float(next(wall)))
    monkeypatch.setattr(time, "time_ns", lambda: next(wall) * 10**9)
    with _running(open_power("hwmon", sysfs=tmp_path)) as power:
        start = time.monotonic()
        time.sleep(0.4)
        end = time.monotonic()
        report = power.report(start, end, 1)
    assert report["joules"] == pytest.approx(14.05 * (end - start))
    assert report["samples"] + report["missed"] == pytest.approx(50 * (end - start), abs=2)
    assert report["rails"]["INT"]["joules"] == pytest.approx(3.5 * (end - start))


STOPPED = """
import json, os, pathlib, subprocess, sys, time
from tutelage.board.power import open_power
power = open_power("hwmon", sysfs=pathlib.Path(sys.argv[1]))
power.start()
time.sleep(0.3)
start = time.monotonic()
stop = f"kill -STOP {os.getpid()}; sleep 1.5; kill -CONT {os.getpid()}"
subprocess.run(["sh", "-c", stop])
time.sleep(0.3)
end = time.monotonic()
print(json.dumps([end - start, power.report(start, end, 1)]))
power.close()
"""


def test_a_stopped_process_reports_it(tmp_path: Path, repo_root: Path) -> None:
    _hwmon_tree(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    command = [sys.executable, "-c", STOPPED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    seconds, report = json.loads(done.stdout)
    assert seconds > 1.7
    assert report["joules"] is None and report["watts"] == pytest.approx(14.05)
    assert report["missed"] >= 60  # the current sample may have an earlier time
    assert all(rail["joules"] is None for rail in report["rails"].values())


# ---- for another process ------------------------------------------------------------------------


def test_readings_for_another_process(repo_root: Path, tmp_path: Path) -> None:
    def answers(source: str, requests: str) -> list[dict[str, object]]:
        command = [sys.executable, "-m", "tutelage.board.power", source, "--sysfs", str(tmp_path)]
        done = subprocess.run(command, input=requests, capture_output=True, text=True, check=True,
                              cwd=repo_root, timeout=60)  # fmt: skip
        return [json.loads(line) for line in done.stdout.splitlines()]

    (absent,) = answers("rapl", "")
    assert absent["source"] == "none" and "no RAPL package" in str(absent["reason"])
    _zone(tmp_path, "intel-rapl:0", "package-0", 0)
    now = time.monotonic()
    there, window = answers("rapl", json.dumps({"start": now, "end": now + 0.3, "frames": 3}))
    assert there["source"] == "rapl" and there["total_rail"] == "package-0"
    assert window["source"] == "rapl" and window["joules"] in (0, None)


# ---- RAPL ---------------------------------------------------------------------------------------


MILLIWATTS = (30_000, 20_000, 4_000, 10_000, 60_000, 30_000)


def test_rapl_adds_packages_and_memory_only(tmp_path: Path) -> None:
    zones = [
        _zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000),
        _zone(tmp_path, "intel-rapl:0:0", "core", 1_000_000),
        _zone(tmp_path, "intel-rapl:0:1", "dram", 2_000_000),
        _zone(tmp_path, "intel-rapl:1", "package-1", 0),
        _zone(tmp_path, "intel-rapl:2", "psys", 0),
        _zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0),
    ]
    clock = Clock()
    power = open_power("rapl", sysfs=tmp_path, clock=clock)
    assert power.rails == (
        "package-0", "package-0/core", "package-0/dram", "package-1", "psys", "total",
    )  # fmt: skip
    assert power.total_rail == "total"
    power.sample()
    assert power.latest() == {}  # a counter's first reading gives no power
    for number in range(1, 51):
        for zone, milliwatts in zip(zones, MILLIWATTS, strict=True):
            counter = zone / "energy_uj"
            counter.write_text(f"{int(counter.read_text()) + milliwatts * 20}\n")
        clock.now = 100 + number / 50
        power.sample()
    assert (power.latest() or {})["total"] == pytest.approx(44)
    report = power.report(100, 101, 1)
    assert report["joules"] == pytest.approx(44)
    assert report["rails"]["psys"]["joules"] == pytest.approx(60)
    assert report["error_joules"] == pytest.approx(2 * 1e-3 * 44)
    power.close()


@given(st.lists(st.integers(0, 900), min_size=1, max_size=60), st.integers(0, 999))
def test_rapl_counts_on_when_its_counter_wraps(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], first: int
) -> None:
    """Steps in mJ on a counter that starts again at 1 J."""
    root = tmp_path_factory.mktemp("rapl")
    zone = _zone(root, "intel-rapl:0", "package-0", first * 1000, span=1_000_000)
    clock = Clock()
    power = open_power("rapl", sysfs=root, clock=clock)
    power.sample()
    value = first
    for number, step in enumerate(steps, 1):
        value = (value + step) % 1000
        (zone / "energy_uj").write_text(f"{value * 1000}\n")
        clock.now = 100 + number / 50
        power.sample()
    power.close()
    figures = power.energy(100, clock.now)["package-0"]
    assert figures.joules == pytest.approx(sum(steps) / 1000)
    assert figures.flagged == 0


def test_rapl_reports_that_only_root_may_read(tmp_path: Path) -> None:
    counter = _zone(tmp_path, "intel-rapl:0", "package-0", 0) / "energy_uj"
    counter.chmod(0)
    scratch = Path(tempfile.gettempdir())
    folders = [each for each in (tmp_path, *tmp_path.parents) if scratch in each.parents]
    modes = [folder.stat().st_mode for folder in folders]
    root = os.geteuid() == 0
    try:
        if root:  # root may read anything; become the user nobody
            for folder in folders:
                folder.chmod(0o755)
            os.seteuid(65534)
        with pytest.raises(PowerError, match=r"power source rapl: .*energy_uj: Permission denied"):
            open_power("rapl", sysfs=tmp_path)
    finally:
        if root:
            os.seteuid(0)
            for folder, mode in zip(folders, modes, strict=True):
                folder.chmod(mode)


# ---- NVML, no source, wrong use -----------------------------------------------------------------


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """NVML with three cards: their power, mW, by the rest of their UUID."""
    watts = {"70a1": 70_000, "30b2": 30_000, "30c3": 30_000}
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(watts),
        nvmlDeviceGetHandleByIndex=lambda index: list(watts)[index],
        nvmlDeviceGetPowerUsage=lambda device: watts[device],
        nvmlDeviceGetUUID=lambda device: f"GPU-{device}",
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return watts


@pytest.mark.parametrize(
    ("visible", "rails"),
    [(None, ["GPU0"]), ("1", ["GPU1"]), ("2,0", ["GPU2", "GPU0", "total"]),
     (" GPU-30c , 1", ["GPU2", "GPU1", "total"]), ("1,-1,0", ["GPU1"]), ("0,7,1", ["GPU0"])],
)  # fmt: skip
def test_nvml_reads_the_cards_that_cuda_programs_use(
    cards: dict[str, int], monkeypatch: pytest.MonkeyPatch, visible: str | None, rails: list[str]
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    power = open_power("nvml")
    assert list(power.rails) == rails and power.total_rail == rails[-1]
    power.sample()
    assert (power.latest() or {}).get("GPU0", 70) == 70
    power.close()


@pytest.mark.parametrize("visible", ["", "-1", "3", "GPU-30", "MIG-70a1", "9" * 5000])
def test_cards_that_cuda_programs_do_not_see_have_no_power(
    cards: dict[str, int], monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    """GPU-30 is ambiguous; a part of a card has no power of its own."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(PowerError, match="power source nvml: "):
        open_power("nvml")


def test_the_error_of_nvml_covers_its_average(cards: dict[str, int]) -> None:
    """5 % of 70 J, and at each end of the second up to 70 J of the second before."""
    clock = Clock()
    power = open_power("nvml", clock=clock)
    _sample_at(power, clock, [100 + n / 50 for n in range(51)])
    assert power.report(100, 101, 1)["error_joules"] == pytest.approx(0.05 * 70 + 2 * 70, rel=0.01)
    power.close()


def test_nvml_reads_every_card(
    cards: dict[str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    clock = Clock()
    power = open_power("nvml", sysfs=tmp_path, clock=clock)
    _sample_at(power, clock, [100 + n / 50 for n in range(51)])
    assert power.latest() == {"GPU0": 70, "GPU1": 30, "total": 100}
    report = power.report(100, 101, 1)
    assert report["joules"] == pytest.approx(100)
    del cards["30b2"]  # fallen off the bus
    clock.now += 0.02
    power.sample()
    assert power.latest() == {"GPU0": 70}
    power.close()


def test_without_a_source_every_figure_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynq.pmbus", None)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with _running(open_power("auto", sysfs=tmp_path)) as power:
        assert power.source == "none" and power.latest() is None and power.total_rail is None
        for name in ("pmbus: ", "hwmon: ", "rapl: ", "nvml: "):
            assert name in power.reason
        assert power.measure_idle(0.01) == {}
        report = power.report(0, 1, 10)
    known = {"source": "none", "reason": power.reason, "rails": {}}
    assert report == {name: known.get(name) for name in report}
    assert open_power("none").reason == "power is not measured: switched off"


@pytest.mark.parametrize("name", ["pmbus", "hwmon", "rapl", "nvml"])
def test_a_named_source_that_is_absent_is_one_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynq.pmbus", None)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(PowerError, match=f"power source {name}: ") as caught:
        open_power(name, sysfs=tmp_path)
    assert "\n" not in str(caught.value)


def test_wrong_use() -> None:
    with pytest.raises(PowerError, match="no power source 'x'"):
        open_power("x")
    with pytest.raises(PowerError, match="readings per second"):
        open_power("none", rate_hz=0)


# ---- a with block -------------------------------------------------------------------------------


def test_a_with_block_measures_its_body() -> None:
    source = Scripted(Clock(), lambda _: 12.5, Rail("12V", 0.025, 60.0), counts=False)
    closed: list[bool] = []
    source.close = lambda: closed.append(True)  # type: ignore[method-assign]
    with Power(source, rate_hz=200) as power:
        begin = time.monotonic()
        time.sleep(0.2)
        assert power.watts == pytest.approx(12.5) and not closed
        seconds = time.monotonic() - begin
    assert closed == [True]
    assert power.joules == pytest.approx(12.5 * seconds, rel=0.1)
    assert power.watts == pytest.approx(12.5)


def test_a_with_block_where_nothing_is_measured(tmp_path: Path) -> None:
    with open_power("none", sysfs=tmp_path) as power:
        assert power.watts is None
    assert (power.watts, power.joules, power.source) == (None, None, "none")


def test_an_error_in_a_with_block_closes_the_source() -> None:
    source = Scripted(Clock(), lambda _: 1.0, Rail("12V", 0.025, 60.0), counts=False)
    closed: list[bool] = []
    source.close = lambda: closed.append(True)  # type: ignore[method-assign]
    with pytest.raises(KeyError), Power(source):
        raise KeyError
    assert closed == [True]


def test_sources_come_in_the_order_of_preference() -> None:
    assert source_names() == ("pmbus", "hwmon", "rapl", "nvml")


def test_the_package_gives_the_names_that_users_import(repo_root: Path) -> None:
    """numpy is not imported until one of them is used."""
    code = (
        "import sys, tutelage.board.power as power; print('numpy' in sys.modules)\n"
        "print(power.Power.__name__, power.PowerError.__name__, power.open_power.__name__)\n"
        "print(hasattr(power, 'Rail'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\nPower PowerError open_power\nFalse\n"


# ---- the profile --------------------------------------------------------------------------------


def test_the_profile_names_each_rail_once() -> None:
    profile = load_profile("zcu104")
    assert {rail.name for rail in profile.rails} == set(IDLE_WATTS)
    assert len({(r.driver, r.address, r.channel) for r in profile.rails}) == len(profile.rails)
    assert {rail.driver for rail in profile.rails} == MONITORS
    assert profile.total_rail == "12V"
    for rail in profile.rails:  # the idle readings are plausible, except FMC's current
        assert IDLE_WATTS[rail.name] <= rail.max_watts
        assert rail.name != "FMC" or 1.5 * rail.max_amps < FMC_AMPS


# ---- the real pynq ------------------------------------------------------------------------------

IN_THE_SENSORS = """
import json, shutil, sys, time
from pathlib import Path
from tutelage.board.power.sources import pmbus as power_sources
from tutelage.board.power import open_power

HWMON = Path("/sys/class/hwmon")

def last(power, seconds, there=None):
    # The 12V rail's last reading, when it is there (or is not) or the time is over.
    end = time.monotonic() + seconds
    while time.monotonic() < end and ("12V" in power.latest()) != there:
        time.sleep(0.05)
    return power.latest().get("12V")

def losing(power):
    # Readings of 12V while its driver is bound, unbound, and bound again elsewhere.
    with power_running(power):
        samples = [last(power, 1, True)]
        chip = (HWMON / "hwmon2").resolve()
        (HWMON / "hwmon2").unlink()
        chip = chip.rename(chip.with_name("hwmon8"))
        samples.append(last(power, 10, False))
        (HWMON / "hwmon8").symlink_to(chip)
        (chip / "power1_input").write_text("15000000")
        samples.append(last(power, 10, True))
        (HWMON / "hwmon8").unlink()
        chip = chip.rename(chip.with_name("hwmon2"))
        (HWMON / "hwmon2").symlink_to(chip)
        samples += [last(power, 10, True), power._thread.is_alive()]
        return samples

class power_running:
    def __init__(self, power): self.power = power
    def __enter__(self): self.power.start()
    def __exit__(self, *_): self.power.close()

out = {}
for name in ("pmbus", "hwmon"):
    power = open_power(name, rate_hz=100)
    power._inspect_every = 2
    power.start()
    start = time.monotonic()
    time.sleep(0.6)
    out[name] = power.report(start, time.monotonic(), 1)
    out[name]["flags"] = power.flags()
    power.close()

out["lost"] = losing(open_power("pmbus", rate_hz=100))
found, power_sources._file_of = power_sources._file_of, lambda *_: None
(HWMON / "hwmon2/power1_input").write_text("14050000")
power = open_power("pmbus", rate_hz=100)
out["no paths"] = power.reason
with power_running(power):
    out["pynq's"] = [last(power, 1, True)]
    (HWMON / "hwmon2").rename(HWMON / "away")
    out["pynq's"].append(last(power, 10, False))
    (HWMON / "away").rename(HWMON / "hwmon2")
    out["pynq's"].append(last(power, 10, True))
power_sources._file_of = found
with open("/etc/sensors.d/zcu104.conf", "a") as config:
    config.write('chip "ina226-*"\\n')
    for name in ("power1", "curr1"):
        config.write(f"  compute {name} @*1.5, @/1.5\\n")
import pynq.pmbus
pynq.pmbus._lib.sensors_cleanup()
power = open_power("pmbus", rate_hz=100)
out["computed"] = power.reason
with power_running(power):
    out["value computed"] = last(power, 1, True)
print(json.dumps(out))
"""


def _python_with_pynq(repo_root: Path) -> str:
    """This Python, or else the one that TUTELAGE_PYNQ_PYTHON names."""
    for python in (sys.executable, os.environ.get("TUTELAGE_PYNQ_PYTHON")):
        code = "import numpy, pynq.pmbus as p; raise SystemExit(p._lib is None)"
        if python and not subprocess.run([python, "-c", code], capture_output=True).returncode:
            return python
    pytest.skip("needs pynq and libsensors, in this Python or in TUTELAGE_PYNQ_PYTHON")


@pytest.mark.slow
def test_the_real_pynq_reads_the_same_as_hwmon(repo_root: Path, shared_dir: Path) -> None:
    tool = shared_dir / "tools" / "fake_zcu104_sensors.sh"
    if os.geteuid() != 0 or not shutil.which("unshare") or not tool.is_file():
        pytest.skip("needs root, unshare and ../shared/tools/fake_zcu104_sensors.sh")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("this machine gives no mount namespace")
    command = [str(tool), _python_with_pynq(repo_root), "-c", IN_THE_SENSORS]
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    for name in ("pmbus", "hwmon"):
        report = out[name]
        assert report["source"] == name and report["total_rail"] == "12V"
        means = {rail: figures["mean_w"] for rail, figures in report["rails"].items()}
        assert means == pytest.approx(IDLE_WATTS)
        assert report["flags"]["FMC"]["current"] > 0
        assert not any(f["flagged"] for rail, f in report["rails"].items() if rail != "FMC")
    assert "pynq.pmbus finds, read from their files in /sys/class/hwmon" in out["pmbus"]["reason"]
    # pynq itself would repeat the last value, and libsensors only reads the old path.
    before, gone, elsewhere, back, alive = out["lost"]
    assert [before, elsewhere, back] == pytest.approx([14.05, 15, 15]) and gone is None and alive
    # Sensors read through pynq come back at their old path.
    assert out["no paths"] == "10 rails of the ZCU104 that pynq.pmbus finds"
    assert out["pynq's"] == [14.05, None, 14.05]
    # A value computed by libsensors' configuration is in no file.
    assert out["computed"].endswith("hwmon but for 1 that pynq reads")
    assert out["value computed"] == pytest.approx(14.05 * 1.5)
