"""run.json and bench.json: written files are read back, and errors name the wrong field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.core.results.figure import Figure, as_json
from tutelage.core.results.run_json import RunResults, read_run, run_table, run_text
from tutelage.core.results.typed_json import MAX_JSON_BYTES, MismatchError, ResultsError, decode

NUMBERS = st.none() | st.floats(-1e9, 1e9)


def _run(**changes: Any) -> dict[str, Any]:
    step = {"name": "offline, 1 thread", "scenario": "offline", "threads": 1,
            "fps": {"value": 100.0, "low": 99, "high": 101.0},
            "latency_ms": {"p50": {"value": 10.0}}, "power": {}}  # fmt: skip
    return {
        "state": "done", "started": "2026-01-02T03:04:05+00:00", "provider": "the board's vart",
        "emulation": False, "machine": {"board": "ZCU104"},
        "model": {"name": "net", "target": "DPUCZDX8G", "provenance": {"loss": 0.1 + 0.2}},
        "steps": [step],
    } | changes  # fmt: skip


@given(NUMBERS, st.none() | st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), NUMBERS)
def test_figures_are_read_as_they_were_written(
    value: float | None, ends: tuple[float, float] | None, error: float | None
) -> None:
    low, high = ends or (None, None)
    figure = Figure(value, low, high, 0.95, 20, "ms", sensor_error=error)
    assert decode(Figure, json.loads(json.dumps(as_json(figure)))) == figure


def test_figures_of_earlier_versions() -> None:
    old = decode(Figure, {"value": 10.0, "ci95": 0.5, "sensor_error": 0.1})
    assert old == Figure(10.0, 9.5, 10.5, 0.95, 1, sensor_error=0.1)
    assert decode(Figure, {"value": 10.0, "ci95": None}) == Figure.around(10.0)
    assert decode(Figure, 14.0) == Figure.around(14.0) and decode(Figure, None) == Figure()


@pytest.mark.parametrize(
    ("figure", "says"),
    [
        ("x", "f is not a number"), ({}, "f lacks 'value'"), ([1], "f is not a number"),
        ({"value": True}, "f.value is not a number"), ({"value": 1, "low": 1}, "one end"),
        ({"value": float("nan")}, "f.value is not a number"), (10**400, "f is not a number"),
        ({"value": 1, "n": 1.5}, "f.n is not an integer"),
        ({"value": 1, "unit": None}, "f.unit is not a string"),
        ({"value": 1, "ci95": "x"}, "f.ci95 is not a number"),
    ],
)  # fmt: skip
def test_figures_that_are_none(figure: object, says: str) -> None:
    with pytest.raises(MismatchError, match=says):
        decode(Figure, figure, "f")


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = decode(RunResults, _run(unknown=1, idle={"before": {"watts": 14.0}, "after": None}))
    (tmp_path / "run.json").write_text(run_text(run))
    assert read_run(tmp_path) == read_run(tmp_path / "run.json") == run
    assert run.on_dpu and run.steps[0].fps.half_width == 1.0
    assert json.loads(run_text(run))["model"]["provenance"] == {"loss": 0.1 + 0.2}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state": 1}, "state is not a string"), ({"emulation": "no"}, "emulation is not true or"),
        ({"steps": {}}, "steps is not a list"), ({"steps": [1]}, r"steps\[0\] is not an object"),
        ({"model": {"name": "x"}}, "model lacks 'target'"),
        ({"steps": [{"name": "x"}]}, r"steps\[0\] lacks 'scenario'"),
        ({"pace": []}, "pace is not an object"), ({"seconds": 1e400}, "seconds is not a number"),
    ],
)  # fmt: skip
def test_runs_that_are_none(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(_run(**changes)))
    with pytest.raises(ResultsError, match=f"run.json: not a measured run: {says}"):
        read_run(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\0", '{"state": 1}'])
def test_files_that_are_not_results(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ResultsError, match="not a measured run: "):
        read_run(tmp_path)
    with pytest.raises(ResultsError, match="board: not a measured run: "):
        run_table(text, "board")


def test_files_that_are_too_large_or_missing(tmp_path: Path) -> None:
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(MAX_JSON_BYTES + 1)
    with pytest.raises(ResultsError, match="larger than the limit of 16 MiB"):
        read_run(tmp_path)
    with pytest.raises(ResultsError, match="none: No such file"):
        read_run(tmp_path / "none")


def test_a_run_that_was_refused_may_have_nothing_but_its_state() -> None:
    assert run_table('{"state": "refused", "error": "hot"}', "x")["error"] == "hot"
