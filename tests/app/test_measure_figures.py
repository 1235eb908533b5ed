"""The figures of a measurement: intervals, windows, energy, the table."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stand_in_board.sensors import write_sensors
from tutelage.app.measure import summary as summary_module
from tutelage.app.measure.plan import Phases, Step, make_steps
from tutelage.app.measure.recorder import COLUMNS, DONE, OK, TOTAL, FrameRecorder
from tutelage.app.measure.step_figures import idle_power, step_figures
from tutelage.app.measure.store import Store, StoreError, hold
from tutelage.app.measure.summary import summary
from tutelage.app.measure.warnings import window_warnings
from tutelage.app.pipeline.result import Result
from tutelage.app.sources.frames import Frame
from tutelage.board.power import Power, open_power
from tutelage.board.power.sources.source import PowerSource, Rail
from tutelage.core.results.figure import Figure
from tutelage.core.results.run_json import (
    FrameCounts,
    IdleResults,
    Latencies,
    PowerResults,
    RunResults,
    WindowFigures,
    rounded,
)
from tutelage.core.results.typed_json import decode
from tutelage.core.text import csv_text

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("frames", [50, 100, 200, 500, 1000, 2000, 4000])
def test_intervals_of_percentiles_have_their_coverage_with_few_frames_too(
    frames: int, nowhere: Power
) -> None:
    """For skewed latencies (gamma, 4), coverage is near 95 %, or there is no interval."""
    rng, rounds = np.random.default_rng(3), 250
    truth = {"mean": 4.0, "p50": 3.6721, "p90": 6.6808, "p99": 10.0451}
    hits, reported = dict.fromkeys(truth, 0), dict.fromkeys(truth, 0)
    for _ in range(rounds):
        rows = _frames(np.linspace(0, 59.999, frames))
        rows[:, TOTAL] = rng.gamma(4, 1, frames)
        latency = step_figures(rows, 0.0, 60.0, nowhere, Figure()).latency_ms
        for name, value in truth.items():
            figure: Figure = getattr(latency, name)
            if figure.low is not None and figure.high is not None:
                reported[name] += 1
                hits[name] += figure.low <= value <= figure.high
    assert reported["mean"] == reported["p50"] == reported["p90"] == rounds
    assert reported["p99"] == (rounds if frames >= 500 else 0)
    for name in truth:
        if reported[name]:
            assert 0.87 <= hits[name] / rounds <= 0.995, name


def _frames(times: np.ndarray, milliseconds: float = 5.0) -> np.ndarray:
    rows = np.full((len(times), len(COLUMNS)), np.nan)
    rows[:, 0], rows[:, DONE] = np.arange(len(times)), times
    rows[:, OK], rows[:, TOTAL] = 1, milliseconds
    return rows


def _idle(watts: float, width: float | None, error: float | None) -> Figure:
    """Return a baseline from its mean, half interval and sensor error, W."""
    return replace(Figure.around(watts, width, "W"), sensor_error=error)


def _error(figure: Figure) -> float:
    assert figure.sensor_error is not None
    return figure.sensor_error


@pytest.fixture
def rail(tmp_path: Path) -> tuple[Power, Path]:
    """A sampler of a 12 V rail that is a file, with the test's own clock."""
    sysfs = tmp_path / "sys"
    write_sensors(sysfs)
    clock = iter(np.arange(0.0, 1e5, 0.01))
    power = open_power("hwmon", sysfs=sysfs, clock=lambda: float(next(clock)), rate_hz=50)
    return power, sysfs


def test_energy_per_frame_by_hand(rail: tuple[Power, Path]) -> None:
    """14.05 W all the time: 100 fps are 140.5 mJ per frame."""
    power, _ = rail
    for _ in range(3000):
        power.sample()
    frames = _frames(np.arange(20.0, 40.0, 0.01) + 0.005)
    idle = _idle(4.05, 0.1, 0.02)
    found = step_figures(frames, 20.0, 40.0, power, idle)
    watts = found.power
    assert found.fps.value == pytest.approx(100) and found.sections == 20
    assert watts.watts.value == pytest.approx(14.05)
    assert watts.watts_above_idle.value == pytest.approx(10.0)
    assert watts.watts_above_idle.half_width == pytest.approx(0.1, rel=1e-6)
    assert watts.joules_per_frame.value == pytest.approx(0.1405)
    assert watts.joules_per_frame_above_idle.value == pytest.approx(0.1)
    assert watts.joules_per_frame_above_idle.half_width == pytest.approx(0.001, rel=1e-3)
    assert watts.fps_per_watt.value == pytest.approx(100 / 14.05)
    assert _error(watts.watts) >= 0.025  # a step of the readings
    assert _error(watts.watts_above_idle) > _error(watts.watts)
    assert len(watts.rails) == 10
    rest = idle_power(power, 5.0, 15.0)
    assert rest.value == pytest.approx(14.05) and rest.half_width == pytest.approx(0, abs=1e-9)


class Scripted(PowerSource):
    """A rail whose power is a function of its clock's time."""

    name = "scripted"

    def __init__(self, watts: Callable[[float], float]) -> None:
        super().__init__("scripted", [Rail("12V", 0.025, 100.0)], "12V")
        self.now, self._watts = 0.0, watts

    def read(self) -> list[float]:
        return [self._watts(self.now)]

    def sampled(self, seconds: float) -> Power:
        """Return a sampler that has sampled at 50 Hz for a time."""
        power = Power(self, 50.0, lambda: self.now)
        for k in range(round(50 * seconds) + 1):
            self.now = k / 50
            power.sample()
        return power


def test_energy_of_a_load_that_changes_by_hand() -> None:
    """10 W and 100 fps, then 20 W and 300 fps: 300 J for 4000 frames, and 5 W idle."""
    power = Scripted(lambda t: 10.0 if t <= 10.01 else 20.0).sampled(21.0)
    times = np.concatenate((np.arange(0, 10, 0.01), 10 + np.arange(3000) / 300)) + 1e-4
    found = step_figures(_frames(times), 0.0, 20.0, power, _idle(5.0, 0.0, 0.1))
    watts = found.power
    assert found.fps.value == pytest.approx(200)
    assert watts.watts.value == pytest.approx(15, rel=1e-3)
    assert watts.joules_per_frame.value == pytest.approx(0.075, rel=1e-3)
    assert watts.fps_per_watt.value == pytest.approx(200 / 15, rel=1e-3)
    assert watts.joules_per_frame_above_idle.value == pytest.approx(0.05, rel=1e-3)
    assert watts.fps_per_watt_above_idle.value == pytest.approx(20, rel=1e-3)
    # Half of the sections are 5 W below, half above: t(19) * 5 / sqrt(19).
    assert watts.watts.half_width == pytest.approx(2.093 * 5 / 19**0.5, rel=0.02)
    assert _error(watts.watts_above_idle) == pytest.approx(_error(watts.watts) + 0.1)
    assert found.drift == pytest.approx(2.0, rel=0.02)


@given(st.floats(1, 50), st.floats(0, 0.9), st.integers(200, 2000))
def test_the_figures_of_energy_agree_with_each_other(
    watts: float, idle: float, frames: int
) -> None:
    power = Scripted(lambda _: watts).sampled(10.5)
    rows = _frames(np.linspace(0, 9.999, frames))
    found = step_figures(rows, 0.0, 10.0, power, _idle(idle * watts, 0.01, 0.02))
    assert found.power.watts_above_idle.value == pytest.approx((1 - idle) * watts)
    for suffix in ("", "_above_idle"):
        power_w, joules, ratio = (
            getattr(found.power, f"{name}{suffix}").value
            for name in ("watts", "joules_per_frame", "fps_per_watt")
        )
        assert joules * found.fps.value == pytest.approx(power_w)
        assert ratio * power_w == pytest.approx(found.fps.value)


def test_without_power_at_rest_there_is_none_above_it() -> None:
    power, frames = Scripted(lambda _: 10.0).sampled(21.0), _frames(np.arange(0, 20, 0.01))

    def above(idle: Figure) -> tuple[Figure, Figure]:
        whole = step_figures(frames, 0.0, 20.0, power, idle).power
        assert whole.watts.half_width == pytest.approx(0, abs=1e-9)
        return whole.watts_above_idle, whole.fps_per_watt_above_idle

    watts, _ = above(_idle(4.0, None, 0.1))
    assert watts.value == pytest.approx(6.0) and watts.half_width is None
    assert above(Figure())[0].value is None
    # 0.1 W with an interval of 0.2 W: the frames per watt are unknown.
    watts, ratio = above(_idle(9.9, 0.2, 0.1))
    assert watts.half_width == pytest.approx(0.2) and ratio.half_width is None
    watts, ratio = above(_idle(11.0, 0.2, 0.1))
    assert watts.value == pytest.approx(-1) and ratio == Figure(unit="fps/W")


def test_a_rail_that_is_lost_for_a_while() -> None:
    frames = _frames(np.arange(0, 20, 0.01))

    def watts(seconds: float) -> Figure:
        source = Scripted(lambda t: float("nan") if 5 < t < 5 + seconds else 10.0)
        idle = _idle(4.0, 0.0, 0.0)
        return step_figures(frames, 0.0, 20.0, source.sampled(21.0), idle).power.watts

    assert watts(2.0) == Figure(unit="W")
    short = watts(0.5)  # filled with the mean, which also counts as error
    assert short.value == pytest.approx(10) and _error(short) > 10 * 0.5 / 20


def test_frames_at_the_edges_failures_and_no_frames(rail: tuple[Power, Path]) -> None:
    power, _ = rail
    frames = _frames(np.array([0.9, 1.0, 1.5, 1.999, 2.0]))
    frames[2, OK] = 0
    found = step_figures(frames, 1.0, 2.0, power, Figure())
    assert found.frames == FrameCounts(classified=2, failed=1)
    assert found.fps == Figure(2.0, n=1, unit="fps") and found.sections is None
    assert found.power.watts == Figure(unit="W")
    nothing = step_figures(frames[:0], 1.0, 2.0, power, Figure())
    assert nothing.fps.value == 0 and nothing.latency_ms.p99.value is None
    assert nothing.power.fps_per_watt.value is None


def _served(milliseconds: np.ndarray, failed: int = 0) -> list[str]:
    """Return the marks of 60 s of "server:100:15".

    Parameters
    ----------
    milliseconds : latencies of 6000 arrivals at equal intervals; NaN without a result
    failed : number of frames that failed, the first ones
    """
    index = np.arange(6000)
    rows = _frames(index / 100 + milliseconds / 1e3)
    rows[:, 0], rows[:, TOTAL] = 50 + index, milliseconds  # 50 arrived during the warm-up
    rows[:failed, OK] = 0
    rows = rows[np.isfinite(milliseconds)]
    step, nothing = Step("server", 2, 100.0, 15.0), Power(PowerSource("nothing there"))
    found = step_figures(rows, 0.0, 60.0, nothing, Figure(), range(50, 6050))
    assert found.frames.arrived == 6000
    return [warning.name for warning in window_warnings(found, step, 60, None)]


def test_frames_that_a_window_did_not_finish_are_above_its_bound() -> None:
    """The last 200 of 6000 arrivals are finished after the window, or never."""
    milliseconds = np.full(6000, 5.0)
    assert _served(milliseconds) == []
    milliseconds[-200:] = 10_000.0
    assert _served(milliseconds) == ["bound"]
    milliseconds[-200:] = np.nan
    assert _served(milliseconds) == ["unanswered", "bound"]
    milliseconds[-200:] = 5.0
    milliseconds[-50:] = np.nan
    assert _served(milliseconds) == []
    assert _served(milliseconds, failed=50) == ["failures", "bound"]


def test_latencies_of_arrivals_have_intervals_as_others_do(nowhere: Power) -> None:
    rng = np.random.default_rng(5)
    rows = _frames(np.linspace(0, 59.999, 6000))
    rows[:, TOTAL] = rng.gamma(4, 1, 6000)
    found = step_figures(rows, 0.0, 60.0, nowhere, Figure(), range(6000)).latency_ms
    others = step_figures(rows, 0.0, 60.0, nowhere, Figure()).latency_ms
    assert found == others
    rows[:, OK] = 0
    none = step_figures(rows, 0.0, 60.0, nowhere, Figure(), range(6000)).latency_ms
    assert none == Latencies(*(Figure(unit="ms") for _ in range(5)))


@pytest.fixture
def nowhere() -> Power:
    return Power(PowerSource("nothing there"))


def test_without_a_source_no_figure_is_made_up(nowhere: Power) -> None:
    power = nowhere
    frames = _frames(np.linspace(0, 9.99, 500))
    found = step_figures(frames, 0.0, 10.0, power, idle_power(power, 0.0, 1.0))
    figures = [figure for figure in vars(found.power).values() if isinstance(figure, Figure)]
    assert len(figures) == 7
    for figure in figures:
        assert figure == Figure(unit=figure.unit)


def test_the_recorder_keeps_every_stage() -> None:
    recorder = FrameRecorder()
    recorder.add(Result(Frame(7, "x"), milliseconds={"infer": 1.5, "total": 4.0}))
    recorder.add(Result(Frame(8, "y"), error="broken"))
    rows = recorder.rows()
    assert rows.shape == (2, len(COLUMNS)) and list(rows[:, OK]) == [1, 0]
    assert rows[0, COLUMNS.index("infer_ms")] == 1.5 and np.isnan(rows[1, TOTAL])


def test_steps_and_how_long_they_take() -> None:
    steps = make_steps(["single-stream", "offline", "server:100:15"], [1, 2], 2)
    assert [step.name for step in steps][:5] == [
        "single-stream, 1 thread", "offline, 1 thread", "offline, 2 threads",
        "server 100/s, 1 thread", "server 100/s, 2 threads",
    ]  # fmt: skip
    assert len(steps) == 10 and steps[-1].repetition == 2 and steps[-1].bound_ms == 15
    assert Phases(10, 1, 60, 5).total(2) == 20 + 2 * 66


@pytest.mark.parametrize(
    "scenario",
    ["", "burst", "server", "server:", "server:x", "server:-1", "server:0", "server:1:2:3",
     "offline:5", "server:nan", "server:1e9"],
)  # fmt: skip
def test_scenarios_that_are_none(scenario: str) -> None:
    with pytest.raises(ValueError, match=r"scenario|server|rate"):
        make_steps([scenario], [1], 1)
    with pytest.raises(ValueError, match="twice"):
        make_steps(["offline"], [2, 2], 1)


def _window(classified: int = 6000, failed: int = 0, **changes: Any) -> WindowFigures:
    figures: dict[str, Any] = {
        "frames": FrameCounts(classified, failed), "sections": 20, "fps": Figure(),
        "power": PowerResults(), "latency_ms": Latencies(p99=Figure(20.0)),
    }  # fmt: skip
    return WindowFigures(**figures | changes)


def _names(
    found: WindowFigures, step: Step, seconds: float = 60, pace: dict[str, Any] | None = None
) -> list[str]:
    return [warning.name for warning in window_warnings(found, step, seconds, pace)]


def test_warnings() -> None:
    step = Step("offline", 1)
    assert _names(_window(), step) == []
    assert _names(_window(), step, 59) == ["short"]
    assert _names(_window(drift=-0.1), step) == ["drift"]
    assert _names(_window(drift=-0.1), Step("server", 1, 100.0, 15.0)) == ["bound"]
    assert _names(_window(3, 2, sections=None), step) == ["failures", "few frames"]
    assert _names(_window(), step, pace={"late": 1, "jobs": 9}) == ["late"]
    lost = PowerResults(source="hwmon", total_rail="12V")
    assert _names(_window(power=lost), step) == ["power"]
    for above, width, error, warnings in ((2.0, 0.1, 0.5, []), (0.5, 0.1, 0.5, ["above idle"]),
                                          (-1.0, None, None, ["above idle"])):  # fmt: skip
        power = replace(lost, watts=Figure(14.0), watts_above_idle=_idle(above, width, error))
        assert _names(_window(power=power), step) == warnings
    assert _names(_window(power=replace(lost, watts=Figure(14.0))), step) == ["above idle"]


@pytest.mark.parametrize(("classified", "warnings"), [(6000, []), (5700, []), (5500, ["overload"])])
def test_a_rate_that_is_not_kept_is_reported(classified: int, warnings: list[str]) -> None:
    """100 per second arrive at random for 60 s: a difference of 77 is within chance."""
    assert _names(_window(classified), Step("server", 2, 100.0)) == warnings


# -- files ------------------------------------------------------------------------------------


def test_one_measurement_at_a_time_and_none_twice(tmp_path: Path) -> None:
    store = Store(tmp_path / "a")
    with pytest.raises(StoreError, match="another measurement is running: a"):
        Store(tmp_path / "b")
    store.close()
    with pytest.raises(StoreError, match="has a measurement already"):
        Store(tmp_path / "a")
    Store(tmp_path / "c").close()


def test_files_are_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "a")
    store.append("x.csv", ("a", "b"), [(1, None), (float("nan"), 0.123456789012)])
    store.append("x.csv", ("a", "b"), [(True, "text, quoted")])
    store.write_text("run.json", json.dumps({"é": 1}))
    store.event("end", name="x")
    store.seal()
    store.close()
    folder = tmp_path / "a"
    assert (folder / "x.csv").read_text() == 'a,b\n1,\n,0.123456789\n1,"text, quoted"\n'
    assert json.loads((folder / "progress.jsonl").read_text())["event"] == "end"
    names = [line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert names == ["progress.jsonl", "run.json", "x.csv"]


CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.text(max_size=5), st.floats()
)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=20), st.integers(1, 5))
def test_rows_come_back_as_they_were_added(rows: list[tuple[Any, Any]], pieces: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "a")
        for k in range(pieces):
            store.append("x.csv", ("first", "second"), rows[k::pieces])
        with (store.folder / "x.csv").open(newline="") as file:
            header, *found = list(csv.reader(file))
        store.close()
    assert header == ["first", "second"]
    for row, cells in zip([row for k in range(pieces) for row in rows[k::pieces]], found,
                          strict=True):  # fmt: skip
        assert all(_same(value, cell) for value, cell in zip(row, cells, strict=True))


def _same(value: Any, cell: str) -> bool:
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return cell == ""
    if isinstance(value, float):
        return float(cell) == pytest.approx(value, rel=1e-8)
    if isinstance(value, str):
        return cell == csv_text(value)
    return cell == (str(int(value)) if isinstance(value, bool) else str(value))


_FULL = """
import sys
from pathlib import Path
from tutelage.app.measure.store import Store, StoreError
store, rows = Store(Path(sys.argv[1]) / "a"), [(k, 0.123456) for k in range(20_000)]
csv, errors = store.folder / "x.csv", 0
store.write_text("run.json", "old")
for count in (20_000, 3000, 100, 1):
    try:
        while True:
            store.append("x.csv", ("a", "b"), rows[:count])
    except StoreError as error:
        assert "No space left" in str(error), error
    lines = csv.read_text().split("\\n")
    assert lines[0] == "a,b" and lines[-1] == "" and len(lines) > 10_000, lines[-3:]
    assert all(line.count(",") == 1 and line.endswith("123456") for line in lines[1:-1])
try:
    store.append("new.csv", ("a", "b"), rows)
except StoreError:
    errors += 1
try:
    store.write_text("run.json", "new" * 100_000)
except StoreError:
    errors += 1
assert errors == 2 and (store.folder / "run.json").read_text() == "old"
assert not list(store.folder.glob("*.partial")) + list(store.folder.glob(".*.partial"))
store.free_reserve()
store.append("new.csv", ("a", "b"), rows[:1])  # with its header, though it had failed before
assert (store.folder / "new.csv").read_text() == "a,b\\n0,0.123456\\n"
store.write_text("run.json", "last words")
store.event("end")
store.seal()
assert "x.csv" in (store.folder / "SHA256SUMS").read_text()
"""


def test_no_torn_line_stays_on_a_full_disk(tmp_path: Path) -> None:
    """Use a real tmpfs of 3 MiB, in a separate mount namespace."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs user namespaces (unshare -rm)")
    mount = 'mount -t tmpfs -o size=3m tmpfs "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-rm", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, _FULL]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.mark.parametrize("name", ["run.json", "frames.csv", "SHA256SUMS"])
def test_a_directory_that_holds_some_file_of_a_measurement(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/log").write_text("of who started it")
    Store(tmp_path / "a").close()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / name).write_text("precious")
    for _ in range(2):  # the lock is free again
        with pytest.raises(StoreError, match="has a measurement already"):
            Store(tmp_path / "b")
    assert (tmp_path / "b" / name).read_text() == "precious"


def test_a_list_of_checksums_is_held_against_removal(tmp_path: Path) -> None:
    assert hold(tmp_path / "absent") is None
    (tmp_path / "SHA256SUMS").write_text("")
    held = hold(tmp_path / "SHA256SUMS")
    assert held is not None
    with (tmp_path / "SHA256SUMS").open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    held.close()
    with (tmp_path / "SHA256SUMS").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(StoreError, match="a deployment is removing"):
            hold(tmp_path / "SHA256SUMS")


def test_columns_have_the_digits_of_their_units(tmp_path: Path) -> None:
    store = Store(tmp_path / "a")
    columns = ("time_s", "12V_W", "total_ms", "clock_mhz", "confidence")
    store.append("power.csv", columns, [
        [100_000.12345678, 14.049999999, 3.141592653, 1199.99999, 0.123456789123],
        [np.float64(1.0), -0.00001, -0.0, np.nan, None],
    ])  # fmt: skip
    store.close()
    lines = (tmp_path / "a/power.csv").read_text().splitlines()
    assert lines[1:] == ["100000.123457,14.05,3.1416,1200,0.123456789", "1,0,0,,"]


def test_figures_have_no_digits_without_meaning() -> None:
    figures = {"a": {"b": [0.1 + 0.2, -0.0, 7, True, None, (1e-12,)]}}
    assert rounded(figures) == {"a": {"b": [0.3, 0, 7, True, None, [1e-12]]}}
    assert "-0" not in json.dumps(rounded({"a": -0.0}))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        Store(tmp_path / "file" / "a")


# -- the table --------------------------------------------------------------------------------


def _run(source: str = "none", **step: Any) -> RunResults:
    figure = {"value": 14.123456, "low": 14.091356, "high": 14.155556, "sensor_error": 0.025}
    names = [f"{name}{suffix}" for name in ("watts", "joules_per_frame", "fps_per_watt")
             for suffix in ("", "_above_idle")]  # fmt: skip
    one = {
        "name": "offline, 1 thread", "scenario": "offline", "threads": 1, "fps": figure,
        "concerns": [{"name": "hot", "text": "up to 95 C"}],
        "latency_ms": dict.fromkeys(("mean", "p50", "p90", "p99"), figure),
        "power": dict.fromkeys(names, figure), **step,
    }  # fmt: skip
    power = {"source": source, "reason": "nothing there", "total_rail": "12V"}
    machine = dict.fromkeys(("board", "machine", "image", "kernel", "python", "opencv"), "x")
    run = {
        "machine": machine, "model": {"name": "net", "target": "ZCU104"}, "state": "done",
        "started": "today", "provider": "p", "emulation": True, "power": power,
        "idle": {"before": None, "after": None}, "steps": [one], "notes": ["a note"],
    }  # fmt: skip
    found: RunResults = decode(RunResults, run)
    return found


def test_the_table_has_marks_and_only_measured_watts() -> None:
    text = summary(_run())
    assert "mJ/frame" not in text and "nothing there" in text and "14.123 ±0.032" in text
    assert "[hot]" in text and "hot: up to 95 C" in text and "- a note" in text
    assert "no figure here was measured on a DPU" in text
    text = summary(_run("hwmon"))
    assert "mJ/frame" in text and "14123 ±32" in text
    assert "resolution, up to ±0.025 W, are not included" in text and "shunts" in text
    lengths = {len(line) for line in text.splitlines() if line.startswith("|")}
    assert len(lengths) == 1
    assert "when a free thread takes the frame" in text and "MLPerf judges p90" not in text


def test_every_mark_is_explained_and_nothing_unknown_has_a_number() -> None:
    marks = [{"name": name, "text": f"why {name}"} for name in ("short", "power", "above idle")]
    run = _run("hwmon", concerns=marks, power={})
    run.idle["before"] = decode(IdleResults, {"watts": 4.0, "concerns": marks[:1]})
    text = summary(run)
    for mark in marks:
        assert f"[{mark['name']}]" in text and f"- offline, 1 thread: {mark['name']}: why" in text
    assert "- idle before: short: why short" in text and "idle 4 W" in text
    (row,) = (line for line in text.splitlines() if line.startswith("| offline"))
    assert [cell.strip() for cell in row.split("|")[-7:-1]] == ["-"] * 6
    assert "None" not in text and "nan" not in text


@given(st.floats(1e-5, 1e5), st.floats(1e-7, 1e4))
def test_a_figure_has_the_digits_that_its_interval_has_meaning_for(value: float, ci: float) -> None:
    shown, width = summary_module._cell(Figure.around(value, ci)).split(" ±")
    assert float(width) == pytest.approx(ci, rel=0.06, abs=1e-6)
    assert float(shown) == pytest.approx(value, abs=max(0.06 * ci, 1e-6))
