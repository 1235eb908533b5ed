"""Stand-in for `pynq`: its power rails and recorder, based on `tutelage.board.power.sampler`.

    rails = pynq.get_rails()
    recorder = pynq.DataRecorder(rails["12V"].power)
    with recorder.record(0.5):
        ...
    recorder.frame

Names and behaviour follow PYNQ's pmbus.py. On a PC the rails are those of RAPL or NVML, or none.
Their voltage and current are None, as in PYNQ for a missing sensor.
"""

from __future__ import annotations

import atexit
import threading
import time
import warnings
from functools import cache
from typing import Any

from tutelage.board.power import Power
from tutelage.board.power import sampler as _power

__all__ = ["DataRecorder", "Rail", "Sensor", "get_rails"]


class Sensor:
    """The power sensor of a rail.

    Attributes
    ----------
    name : name such as "12V_power"
    """

    def __init__(self, power: Power, rail: str) -> None:
        self._power, self._rail = power, rail
        self.name = f"{rail}_power"

    @property
    def value(self) -> float:
        """The last reading, W; NaN if it failed."""
        return (self._power.latest() or {}).get(self._rail, float("nan"))

    def __repr__(self) -> str:
        return f"Sensor {{name={self.name}, value={self.value}W}}"


class Rail:
    """One power rail.

    Attributes
    ----------
    name : name such as "12V"
    voltage, current : None, since only power is measured
    power : the power sensor
    """

    def __init__(self, power: Power, name: str) -> None:
        self.name = name
        self.voltage = self.current = None
        self.power = Sensor(power, name)

    def __repr__(self) -> str:
        return f"Rail {{name={self.name}, power={self.power!r}}}"


def get_rails(config_file: str | None = None) -> dict[str, Rail]:
    """Return the rails whose power is measured here, by name; {} with a warning if there are none.

    Parameters
    ----------
    config_file : ignored, since libsensors is not used
    """
    power = _sampler()
    if not power.rails:
        warnings.warn(power.reason, stacklevel=2)
    return {name: Rail(power, name) for name in power.rails}


@cache
def _sampler() -> Power:
    power: Power = _power.open_power()
    power.start()
    atexit.register(power.close)
    return power


class DataRecorder:
    """Recorder of sensors in a thread, from `record` to `stop` or the end of a `with` block."""

    def __init__(self, *sensors: Sensor) -> None:
        self._sensors = sensors
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Delete the record."""
        self._rows: list[tuple[float, int, list[float]]] = []  # time, mark, readings
        self._mark = -1

    def record(self, interval: float) -> DataRecorder:
        """Record a row every `interval` seconds, starting now.

        Raises
        ------
        RuntimeError
            The recorder is already recording.
        """
        if self._thread is not None:
            raise RuntimeError("DataRecorder is already recording")
        self._mark += 1
        self._ended.clear()
        self._thread = threading.Thread(target=self._work, args=(interval,), daemon=True)
        self._thread.start()
        return self

    def __enter__(self) -> DataRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop recording."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def mark(self) -> None:
        """Increase the mark of the following rows."""
        self._mark += 1

    def _work(self, interval: float) -> None:
        while True:
            self._rows.append((time.time(), self._mark, [each.value for each in self._sensors]))
            if self._ended.wait(interval):
                return

    @property
    def frame(self) -> Any:
        """The record as a pandas.DataFrame: index time, columns Mark and one per sensor.

        Raises
        ------
        ImportError
            pandas is not installed.
        """
        import pandas

        columns = ["Mark", *(sensor.name for sensor in self._sensors)]
        record = self._rows.copy()  # the thread may append a row meanwhile
        times = pandas.to_datetime([when for when, _, _ in record], unit="s")
        rows = [[mark, *readings] for _, mark, readings in record]
        return pandas.DataFrame(rows, columns=columns, index=times)


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"pynq has no {name}")
    text = f"pynq.{name}: only get_rails and DataRecorder are emulated"
    raise AttributeError(text)
