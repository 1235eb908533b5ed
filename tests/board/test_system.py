from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import numpy as np
import pytest

from tutelage.board import system
from tutelage.board.system import SystemMonitor, board_facts

needs_psutil = pytest.mark.skipif(system.psutil is None, reason="needs psutil")


def _zone(root: Path, number: int, kind: str, text: str) -> Path:
    zone = root / "class" / "thermal" / f"thermal_zone{number}"
    zone.mkdir(parents=True)
    (zone / "type").write_text(kind + "\n")
    (zone / "temp").write_text(text)
    return zone / "temp"


@pytest.fixture
def no_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose psutil finds no temperatures."""
    monkeypatch.setattr(system, "_psutil_temperatures", dict)


def _burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@needs_psutil
def test_reports_cpu_and_memory_of_the_process() -> None:
    monitor = SystemMonitor()
    start = time.monotonic()
    _burn(0.3)
    ballast = np.ones(40_000_000, np.uint8)
    figures = monitor.read()
    elapsed = time.monotonic() - start
    assert figures["memory_bytes"] is not None and figures["memory_bytes"] > ballast.nbytes
    assert figures["cpu_percent"] is not None
    assert 0.25 / elapsed < figures["cpu_percent"] / 100 < os.cpu_count()  # type: ignore[operator]
    peak = figures["memory_bytes"]
    del ballast
    report = monitor.report()
    assert report["cpu_seconds"] is not None and report["cpu_seconds"] >= 0.25
    assert report["cpu_percent_mean"] is not None and report["cpu_percent_mean"] > 0
    assert report["memory_peak_bytes"] is not None and report["memory_peak_bytes"] >= peak


@needs_psutil
def test_a_report_leaves_the_readings_alone() -> None:
    monitor = SystemMonitor()
    _burn(0.1)
    monitor.report()
    percent = monitor.read()["cpu_percent"]
    assert percent is not None and percent > 10  # since the last reading, not since the report


def test_without_psutil_only_the_temperature_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(system, "psutil", None)
    _zone(tmp_path, 0, "cpu-thermal", "51250\n")
    monitor = SystemMonitor(tmp_path)
    assert monitor.read() == {"cpu_percent": None, "memory_bytes": None, "temperature_c": 51.25}
    assert monitor.report() == {
        "cpu_seconds": None,
        "cpu_percent_mean": None,
        "memory_peak_bytes": None,
        "temperature_max_c": 51.25,
    }


@pytest.mark.usefixtures("no_sensors")
def test_takes_the_warmest_plausible_sensor_of_the_processor(tmp_path: Path) -> None:
    zone = _zone(tmp_path, 0, "coretemp", "40000\n")
    _zone(tmp_path, 1, "coretemp", "45500\n")
    _zone(tmp_path, 2, "coretemp", "-273000\n")
    _zone(tmp_path, 3, "wifi", "90000\n")
    _zone(tmp_path, 4, "broken", "no number\n")
    monitor = SystemMonitor(tmp_path)
    assert monitor.read()["temperature_c"] == 45.5
    assert monitor.temperature_source == "coretemp"
    zone.write_text("70000\n")
    monitor.read()
    zone.write_text("41000\n")
    assert monitor.read()["temperature_c"] == 45.5
    assert monitor.report()["temperature_max_c"] == 70


@pytest.mark.usefixtures("no_sensors")
def test_takes_another_sensor_where_the_processor_has_none(tmp_path: Path) -> None:
    _zone(tmp_path, 0, "irps5401", "38000\n")
    monitor = SystemMonitor(tmp_path)
    assert (monitor.read()["temperature_c"], monitor.temperature_source) == (38.0, "irps5401")


@pytest.mark.usefixtures("no_sensors")
def test_without_a_sensor_there_is_no_temperature(tmp_path: Path) -> None:
    monitor = SystemMonitor(tmp_path)
    assert monitor.read()["temperature_c"] is None and monitor.temperature_source is None
    assert monitor.report()["temperature_max_c"] is None


def test_facts_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"ZynqMP ZCU104 RevC\0")
    facts = board_facts(tmp_path)
    assert facts["board"] == "ZynqMP ZCU104 RevC"
    assert facts["cpus"] == os.cpu_count()
    assert facts["numpy"] == np.__version__
    assert facts["python"] == platform.python_version()
    assert facts["opencv"] == pytest.importorskip("cv2").__version__
    assert platform.node() not in {str(value) for value in facts.values()}
    assert board_facts(tmp_path / "none")["board"] is None
