"""The comparison's rows: those of the DPU, measured and predicted, and power that users give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")

from tests.host.test_bench_gains import bench_row
from tutelage.core.results.bench_json import CPU, DPU, EMULATED, EMULATION, BenchRow
from tutelage.core.results.figure import GIVEN, MEASURED, PREDICTED, Figure
from tutelage.core.results.intervals import median_figure, ratio
from tutelage.dpu.predict.latency import predict_graph
from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.bench.dpu_rows import predicted_row, read_runs
from tutelage.host.bench.given_watts import give_watts
from tutelage.host.bench.subject import BenchUsageError, Subject, load_subject
from tutelage.host.bench.thesis import compare


def test_watts_that_the_user_gives_say_so() -> None:
    row = bench_row("cpu", CPU, 1, 100, None)
    row.idle_watts, row.watts_above_idle = Figure.around(9.0), Figure.around(1.0)
    give_watts(row, 20.0)
    assert row.idle_watts.value is row.watts_above_idle.value is None
    assert row.power_source == GIVEN and not row.power_reason
    assert row.joules_per_frame.value == pytest.approx(0.2)


# -- rows of the DPU --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def subject(repo_root: Path) -> Subject:
    return load_subject(repo_root / "app" / "demo")


def _figure(value: float | None) -> dict[str, float | None]:
    if value is None:
        return {"value": None}
    return {"value": value, "low": 0.99 * value, "high": 1.01 * value, "coverage": 0.95, "n": 1}


def _step(scenario: str, threads: int, fps: float, watts: float | None = 14.0) -> dict[str, Any]:
    joules = None if watts is None else watts / fps
    return {
        "name": f"{scenario}, {threads}", "scenario": scenario, "threads": threads,
        "fps": _figure(fps), "concerns": [],
        "latency_ms": {name: _figure(1000 / fps) for name in ("p50", "p90", "p99")},
        "power": {"source": "pmbus", "reason": "12V", "total_rail": "12V", "watts": _figure(watts),
                  "joules_per_frame": _figure(joules)},
    }  # fmt: skip


def _run(subject: Subject, **changes: Any) -> dict[str, Any]:
    run: dict[str, Any] = {
        "state": "done", "error": None, "started": "2026-01-02T03:04:05+00:00",
        "provider": "the board's vart", "emulation": False, "realtime": None,
        "machine": {"board": "ZCU104", "machine": "aarch64"},
        "model": {"name": "demo", "target": "DPUCZDX8G", "dpu": None,
                  "provenance": {"checkpoint_sha256": subject.checkpoint}},
        "steps": [_step("single-stream", 1, 500), _step("offline", 1, 600),
                  _step("offline", 2, 1100)],
    }  # fmt: skip
    return run | changes


def _read(tmp_path: Path, run: Any, subject: Subject) -> BenchRow:
    (tmp_path / "run.json").write_text(json.dumps(run))
    (row,) = read_runs([tmp_path], subject)
    return row


def test_a_measured_run(tmp_path: Path, subject: Subject) -> None:
    row = _read(tmp_path, _run(subject), subject)
    assert (row.id, row.family, row.kind, row.threads) == ("dpu-1", DPU, MEASURED, 2)
    assert row.provenance.startswith("measured, by tutelage.app.measure, the board's vart, ")
    assert row.provenance.endswith("2026-01-02T03:04:05+00:00, ZCU104")
    assert row.latency_ms.p50 == Figure.around(2.0, 0.02)
    assert row.fps.value == 1100 and row.watts.value == 14
    assert row.joules_per_frame.value == pytest.approx(14 / 1100)
    assert row.same_student is True and not row.concerns


def test_remarks_about_a_run_are_kept(tmp_path: Path, subject: Subject) -> None:
    notes = ["offline, 2 threads: left out: brown-out", "the wall clock was set by +3.0 s"]
    steps = [_step("single-stream", 1, 500), _step("offline", 1, 600)]
    run = _run(subject, steps=steps, notes=notes, clocks={"dpu_cores": 2})
    one_core, *others = _read(tmp_path, run, subject).concerns
    assert one_core.startswith("Offline used 1 of the DPU's 2 cores") and others == notes
    assert not _read(tmp_path, _run(subject, clocks={"dpu_cores": 2}), subject).concerns


def test_repetitions_of_a_run_give_their_median(tmp_path: Path, subject: Subject) -> None:
    steps = [_step("offline", 1, fps) for fps in (100, 130, 110)]
    row = _read(tmp_path, _run(subject, steps=steps), subject)
    assert row.fps.ends == (110, 100, 130)
    assert row.latency_ms.p50.value is None
    assert row.concerns == ["the run has no single-stream window"]
    for step, error in zip(steps, (0.02, 0.03, 0.01), strict=True):
        step["power"]["watts"]["sensor_error"] = error
    row = _read(tmp_path, _run(subject, steps=steps), subject)
    assert row.watts.n == 3 and row.watts.sensor_error == 0.03


@pytest.mark.parametrize("realtime", [None, "zcu104"])
def test_an_emulated_run_is_not_a_dpus(
    tmp_path: Path, subject: Subject, realtime: str | None
) -> None:
    row = _read(tmp_path, _run(subject, emulation=True, realtime=realtime), subject)
    assert (row.id, row.family, row.kind) == ("emulation-1", EMULATION, EMULATED)
    assert "no DPU" in row.title and row.provenance.startswith("emulation, ")
    assert "measured" not in row.provenance and "not figures of a DPU" in row.concerns[0]
    assert ("predicted for zcu104" in row.concerns[0]) == (realtime is not None)
    assert compare([bench_row("cpu", CPU, 1, 1, 1), row]) == []


def test_a_run_on_a_stand_in_board_is_not_a_dpus(tmp_path: Path, subject: Subject) -> None:
    pace = {"measured": False, "text": "at the pace predicted for zcu104 or slower"}
    row = _read(tmp_path, _run(subject, pace=pace), subject)
    assert (row.family, row.kind) == (EMULATION, EMULATED)
    assert row.concerns[0] == f"emulation {pace['text']}: not figures of a DPU"
    real = _run(subject, pace={"measured": True, "text": "the DPU's own"})
    assert _read(tmp_path, real, subject).kind == MEASURED


def test_a_run_of_another_student(tmp_path: Path, subject: Subject) -> None:
    model = _run(subject)["model"]
    other = _read(tmp_path, _run(subject, model=model | {"provenance": {"checkpoint_sha256": "0"}}),
                  subject)  # fmt: skip
    assert other.same_student is False
    unknown = _read(tmp_path, _run(subject, model=model | {"provenance": {}}), subject)
    assert unknown.same_student is None and "unknown whether" in unknown.concerns[0]


def test_a_run_that_broke_off(tmp_path: Path, subject: Subject) -> None:
    row = _read(tmp_path, _run(subject, state="failed", error="too hot", steps=[]), subject)
    assert "the run was not completed: failed: too hot" in row.concerns
    assert row.fps.value is None


@pytest.mark.parametrize("content", [{}, [], 3, {"emulation": "no"}, {"emulation": False}])
def test_directories_that_are_not_runs(tmp_path: Path, subject: Subject, content: Any) -> None:
    with pytest.raises(BenchUsageError, match="not a measured run"):
        _read(tmp_path, content, subject)


def test_a_run_must_say_whether_it_is_the_emulation(tmp_path: Path, subject: Subject) -> None:
    for emulation in (None, "false", 0):
        with pytest.raises(BenchUsageError, match="emulation is not true or false"):
            _read(tmp_path, _run(subject, emulation=emulation), subject)
    with pytest.raises(BenchUsageError, match="No such file"):
        read_runs([tmp_path / "none"], subject)


def test_the_prediction_is_marked_as_one(subject: Subject, repo_root: Path) -> None:
    row = predicted_row(subject, "zcu104")
    graph = Graph.deserialize(repo_root / "app" / "demo" / "model.xmodel")
    found = predict_graph(graph)
    assert (row.family, row.kind) == (DPU, PREDICTED)
    assert row.provenance.startswith("predicted, by tutelage.dpu.predict.latency")
    for figures, seconds in ((row.latency_ms, found.latency_seconds),
                             (row.network_latency_ms, found.job_seconds)):  # fmt: skip
        assert figures.p90 == figures.p99 == Figure()  # these are not predicted
        value, low, high = figures.p50.ends
        assert value is not None and low is not None and high is not None
        assert value == pytest.approx(1e3 * seconds) and low < value < high
        assert figures.p50.coverage is None and figures.p50.kind == PREDICTED
    assert (row.fps.low, row.fps.high) == found.fps_range()
    assert row.network_fps.value is not None and row.fps.value is not None
    assert row.network_fps.value >= row.fps.value > 1 / found.latency_seconds
    assert row.watts.ends == (18.0, 16.0, 20.0) and row.watts.kind == PREDICTED
    assert row.power_source.startswith("estimate from public figures")
    assert row.joules_per_frame.value == pytest.approx(18 / found.fps())
    assert any("extrapolation" in concern for concern in row.concerns)
    compared = compare([bench_row("cpu", CPU, 1, 1, 1), row])[0]
    assert compared.kind == PREDICTED and "latency: network alone" in compared.stages
    assert compared.speed_up.figure.value == pytest.approx(1e-3 / found.job_seconds)
    measured = median_figure([1.0, 1.1, 0.9, 1.0, 1.2, 0.8])
    gain = ratio(measured, row.network_latency_ms.p50)
    assert gain.value and gain.low and gain.high and gain.low < gain.value < gain.high
    assert gain.coverage is None and gain.kind == PREDICTED
    assert compared.efficiency.figure.kind == compared.power.figure.kind == PREDICTED
    assert compared.power.figure.value == pytest.approx(1 / 18)
