"""The stand-in for `pynq` reads this project's sensors."""

from __future__ import annotations

import math
import time
import warnings
from pathlib import Path

import pytest

from tests.stand_in_board.sensors import Sensors, write_sensors
from tutelage.board.power import open_power
from tutelage.board.stand_ins import pynq


def _until(reading: pynq.Sensor, wanted: float) -> None:
    end = time.monotonic() + 30
    while not math.isclose(reading.value, wanted):
        assert time.monotonic() < end, reading
        time.sleep(0.01)


def test_a_rails_power_is_read_and_recorded(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="needs pandas, which is not installed")
    write_sensors(tmp_path)
    board, power = Sensors(tmp_path), open_power("hwmon", sysfs=tmp_path, rate_hz=200)
    rail = pynq.Rail(power, "12V")
    assert (rail.name, rail.voltage, rail.current) == ("12V", None, None)
    assert math.isnan(rail.power.value)  # before the first sample
    power.start()
    board.set_power("12V", 20.0)
    _until(rail.power, 20.0)
    assert repr(rail) == ("Rail {name=12V, power=Sensor {name=12V_power, value=20.0W}}")
    recorder = pynq.DataRecorder(rail.power, pynq.Rail(power, "INT").power)
    with recorder.record(0.001):
        with pytest.raises(RuntimeError, match="already recording"):
            recorder.record(1)
        board.set_power("12V", 30.0)
        _until(rail.power, 30.0)
        recorder.mark()
        _until(rail.power, 30.0)
        while len(recorder.frame) < 2 or recorder.frame["Mark"].iloc[-1] == 0:
            time.sleep(0.001)
    frame = recorder.frame
    assert list(frame.columns) == ["Mark", "12V_power", "INT_power"]
    assert isinstance(frame.index, pandas.DatetimeIndex) and frame.index.is_monotonic_increasing
    assert frame["Mark"].iloc[0] == 0 and frame["Mark"].iloc[-1] == 1
    assert frame["12V_power"].iloc[0] == 20.0 and frame["12V_power"].iloc[-1] == 30.0
    recorder.reset()
    assert not len(recorder.frame)
    power.close()


def test_the_rails_are_those_that_are_measured_here() -> None:
    power = open_power()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rails = pynq.get_rails()
    assert list(rails) == list(power.rails)
    assert [str(warning.message) for warning in caught] == ([] if rails else [power.reason])
    assert all(name == rail.name == rail.power.name[: -len("_power")]
               for name, rail in rails.items())  # fmt: skip
    power.close()


def test_rows_may_be_added_while_a_frame_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pandas = pytest.importorskip("pandas", reason="needs pandas, which is not installed")
    recorder = pynq.DataRecorder(pynq.Sensor(open_power("none", sysfs=tmp_path), "12V"))
    to_datetime = pandas.to_datetime

    def slow(*arguments: object, **options: object) -> object:
        times = to_datetime(*arguments, **options)
        time.sleep(0.1)
        return times

    monkeypatch.setattr(pandas, "to_datetime", slow)
    with recorder.record(0.001):
        assert list(recorder.frame.columns) == ["Mark", "12V_power"]
