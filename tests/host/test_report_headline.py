"""The headline figures of a report: from the same windows of a run as in `tutelage bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from tutelage.core.locations import DEMO_MODEL
from tutelage.core.model_package import COMPILED
from tutelage.core.results.run_json import RUN_FILE, RunResults, read_run
from tutelage.host.bench.dpu_rows import read_runs
from tutelage.host.bench.subject import load_subject
from tutelage.host.report.content import Fact, Facts
from tutelage.host.report.cost_section import Cost, predicted_cost
from tutelage.host.report.headline_section import headline_section
from tutelage.host.report.subject import find_subject


def _step(scenario: str, fps: float, threads: int = 1) -> dict[str, Any]:
    return {
        "name": scenario, "scenario": scenario, "threads": threads, "fps": {"value": fps},
        "latency_ms": {"p50": {"value": 1000 / fps}},
        "power": {"source": "pmbus", "watts": {"value": fps / 10},
                  "joules_per_frame": {"value": 0.1}},
    }  # fmt: skip


def _run(folder: Path, *steps: dict[str, Any], started: str = "2026-01-02") -> RunResults:
    folder.mkdir(exist_ok=True)
    run = {"state": "done", "started": started, "provider": "vart", "emulation": False,
           "machine": {"board": "ZCU104"}, "model": {"name": "net", "target": "x"},
           "steps": list(steps)}  # fmt: skip
    (folder / RUN_FILE).write_text(json.dumps(run))
    return read_run(folder)


def _headline(*runs: RunResults, cost: Cost | None = None) -> tuple[str, dict[str, Fact]]:
    """Return the sentence on the origin, and the facts by label."""
    text, facts = headline_section(find_subject(DEMO_MODEL, None), cost, runs).parts
    assert isinstance(text, str) and isinstance(facts, Facts)
    return text, {fact.label: fact for fact in facts.facts}


def test_repetitions_give_the_median_as_in_a_comparison(tmp_path: Path) -> None:
    steps = [_step("offline", fps) for fps in (100, 130, 110)]
    _, facts = _headline(_run(tmp_path, *steps))
    (row,) = read_runs([tmp_path], load_subject(DEMO_MODEL))
    assert row.fps.ends == (110, 100, 130) and row.watts.ends == (11, 10, 13)
    assert (facts["Speed"].value, facts["Speed"].note) == ("110 fps", "100 to 130 fps; 1 thread")
    assert facts["Power"].value == "11.0 W"
    assert facts["Power"].note == "10.0 to 13.0 W; the whole board, 1 thread"
    assert facts["Energy"].value == "100 mJ" and facts["Energy"].note.endswith(", 1 thread")
    assert "Latency" not in facts, "Offline keeps frames waiting"


def test_repetitions_of_one_image_at_a_time_give_the_median(tmp_path: Path) -> None:
    steps = [_step("single-stream", fps) for fps in (100, 125, 200)]
    _, facts = _headline(_run(tmp_path, *steps, _step("offline", 300, 4)))
    assert facts["Latency"].value == "8.0 ms" and "one image at a time" in facts["Latency"].note
    assert (facts["Speed"].value, facts["Speed"].note) == ("300 fps", "4 threads")


def test_the_rate_of_arrivals_is_not_a_speed(tmp_path: Path) -> None:
    run = _run(tmp_path, _step("server", 100))
    assert not {"Latency", "Speed", "Power", "Energy"} & _headline(run)[1].keys()
    cost = predicted_cost(DEMO_MODEL / COMPILED, "zcu104", tmp_path)
    _, facts = _headline(run, cost=cost)
    for label in ("Latency", "Speed", "Power", "Energy"):
        assert facts[label].kind == "predicted"
    assert facts["Speed"].note.endswith("; as many threads as help")


def test_watts_of_another_model_are_a_prediction_for_this_one(tmp_path: Path) -> None:
    (tmp_path / "zcu104").mkdir()
    _run(tmp_path / "zcu104/other", _step("offline", 190, 2))
    cost = predicted_cost(DEMO_MODEL / COMPILED, "zcu104", tmp_path)
    text, facts = _headline(cost=cost)
    assert cost.watts.kind == "measured" and "no measurement of this model" in text
    assert (facts["Power"].value, facts["Power"].kind) == ("19 W", "predicted")


def test_the_newest_of_the_named_runs_gives_the_figures(tmp_path: Path) -> None:
    runs = [_run(tmp_path / day, _step("offline", fps), started=f"2026-01-{day}")
            for day, fps in (("03", 130), ("05", 110), ("04", 120))]  # fmt: skip
    text, facts = _headline(*runs)
    assert facts["Speed"].value == "110 fps" and "the run of 2026-01-05 on ZCU104" in text
