from __future__ import annotations

import math
import time

import numpy as np
import pytest

from tutelage.app.pipeline.gauges import Gauges
from tutelage.app.pipeline.pipeline import Pipeline
from tutelage.app.pipeline.result import Result
from tutelage.app.pipeline.run_figures import Histogram, RunFigures
from tutelage.app.pipeline.run_summary import _power
from tutelage.app.sources.frames import Frame, FrameSource
from tutelage.board.power import Power
from tutelage.board.power.sources.source import PowerSource, Rail


def test_percentiles_are_within_half_a_percent_of_the_exact_ones() -> None:
    latencies = np.random.default_rng(0).lognormal(1.0, 1.5, 20_000)
    histogram = Histogram()
    for part in np.array_split(latencies, 7):
        histogram.add(part)
    report = histogram.report()
    for percent in (50, 90, 99):
        exact = np.sort(latencies)[math.ceil(len(latencies) * percent / 100) - 1]
        assert abs(report[f"p{percent}"] / exact - 1) < 0.0051
    assert report["max"] == round(latencies.max(), 4)
    assert abs(report["mean"] - latencies.mean()) < 1e-3


def test_extreme_latencies_have_a_place() -> None:
    histogram = Histogram()
    assert histogram.report()["p99"] == 0.0
    for latency in (0.0, 1e-9, 1e12):
        histogram.add([latency])
    assert histogram.count == 3 and histogram.maximum == 1e12


def test_counts_and_accuracy() -> None:
    figures = RunFigures()
    for number, (label, error) in enumerate(
        [("a", None), ("b", None), (None, None), (None, "cut off")]
    ):
        top = [] if error else [("a", 0.9)]
        frame = Frame(number, str(number), None)
        figures.add(Result(frame, top, label, error, {"infer": 2.0}))
    report = figures.report()
    assert report["frames"] == {"in": 4, "classified": 3, "failed": 1}
    assert report["accuracy"] == {"top1": 0.5, "correct": 1, "labelled": 2}
    assert list(report["latency_ms"]) == ["infer"]
    assert RunFigures().report()["accuracy"] is None


def test_gauges_cover_the_time_from_their_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(FrameSource(), [], lambda result: None)
    gauges = Gauges(pipeline, 1, None)
    monkeypatch.setattr(pipeline, "core_seconds", lambda: [5.0])
    assert gauges.report()["dpu"]["utilisation"] == 1.0
    gauges.restart()
    assert gauges.report()["dpu"]["utilisation"] == 0.0


def test_loads_are_unknown_before_the_first_look_rather_than_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = Pipeline(FrameSource(), [], lambda result: None)
    monkeypatch.setattr(pipeline, "core_seconds", lambda: [time.monotonic()])
    gauges = Gauges(pipeline, 1, None)
    found = gauges.read()
    assert found["dpu_utilisation"] is None and found["cpu_percent"] is None
    time.sleep(0.05)
    gauges.look()
    found = gauges.read()
    assert found["dpu_utilisation"] > 0.9 and found["cpu_percent"] is not None


def test_a_difference_that_is_nothing_has_no_sign() -> None:
    power = {"watts": 14.0512, "source": "hwmon", "total_rail": "12V", "joules": 1.23456,
             "joules_per_frame": 0.0123456, "joules_per_frame_above_idle": -1e-13}  # fmt: skip
    (line,) = _power({"power": power})
    assert line == "power      14.05 W (hwmon, 12V), 12.35 mJ per frame, 0 mJ above idle"


def test_watts_of_a_run_with_too_few_readings_are_marked() -> None:
    """A sensor that is lost for longer than 5 % of the run leaves the mean of the rest."""
    source = Lost()
    power = Power(source, 50.0, lambda: source.now)
    for k in range(501):
        source.now = k / 50
        power.sample()
    report = power.report(0.0, 10.0, 100)
    assert report["watts"] == pytest.approx(10.0) and report["joules"] is None
    (line,) = _power({"power": report})
    assert line.startswith("power      10 W (lost, 12V), only of the part with readings")


class Lost(PowerSource):
    """A rail with 10 W that cannot be read after 8 s."""

    name = "lost"

    def __init__(self) -> None:
        super().__init__("lost", [Rail("12V", 0.025, 60.0)], "12V")
        self.now = 0.0

    def read(self) -> list[float]:
        return [10.0 if self.now < 8 else math.nan]
