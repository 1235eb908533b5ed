"""Power and energy of boards: the estimate, published watts, and measured runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.bench_results import bench_results
from tutelage.core.board_profile import load_profile
from tutelage.core.errors import DpuError
from tutelage.core.files import sha256_of
from tutelage.core.locations import DEMO_MODEL
from tutelage.core.model_package import COMPILED, DESCRIPTION, read_description
from tutelage.core.results.bench_json import (
    DPU,
    BenchModel,
    BenchRow,
    bench_text,
)
from tutelage.core.results.figure import MEASURED, PREDICTED, Figure
from tutelage.dpu.predict.energy import BoardPower, board_power
from tutelage.dpu.predict.latency import Prediction, predict
from tutelage.dpu.predict.listing import prediction_lines
from tutelage.dpu.predict.prediction import predict_file, prediction_facts
from tutelage.host.latency.published_networks import squeezenet

BOARDS = ("zcu104", "zcu102", "kv260")
MODEL = DEMO_MODEL / COMPILED


def network(board: str = "zcu104") -> Prediction:
    """A SqueezeNet."""
    return predict(squeezenet(), board)


def ratio(figure: Figure) -> float:
    assert figure.value and figure.low and figure.high
    assert figure.low <= figure.value <= figure.high
    return figure.high / figure.low


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("threads", [1, 2, 3, 8, None])
def test_the_estimate_is_within_one_and_a_half(
    board: str, threads: int | None, tmp_path: Path
) -> None:
    power = board_power(board, tmp_path)
    assert power is not None and not power.measured and "public" in power.source
    joules = power.joules_per_frame(network(board), threads)
    assert ratio(power.watts(threads)) <= 1.5 and ratio(joules) <= 1.5
    assert joules.kind == PREDICTED
    bounds = power.joule_bounds(network(board), threads)
    if bounds is not None:
        assert bounds.low and bounds.high and joules.low and joules.high
        assert bounds.low < joules.low and joules.high < bounds.high


def test_a_zcu104_by_the_public_increments(tmp_path: Path) -> None:
    """Idle power of the profile; 16 to 20 W with both cores; the middle with one."""
    power = board_power("zcu104", tmp_path)
    assert power is not None and power.public is not None and power.bounds is not None
    idle = load_profile("zcu104").idle_watts
    assert power.public.rest == (idle, idle) and power.bounds.ends == (None, idle, 60.0)
    assert power.watts().ends == (18.0, 16.0, 20.0) == power.watts(2).ends
    assert power.watts(1).ends == pytest.approx((16.025, 15.025, 17.025))
    found = network()
    joules = power.joules_per_frame(found)
    assert joules.value == pytest.approx(18 / found.fps())


def published_watts(shared: Path) -> list[dict[str, str]]:
    path = shared / "data" / "published_points.csv"
    if not path.exists():
        pytest.skip("published_points.csv is not here")
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["watts"]]


def test_published_watts_are_within_the_estimate(repo_root: Path, tmp_path: Path) -> None:
    rows = published_watts(repo_root.parent / "shared")
    assert len(rows) >= 8
    for row in rows:
        power = board_power(row["board"].lower(), tmp_path)
        assert power is not None
        threads = None if row["threads"] == "many" else int(row["threads"])
        watts = power.watts(threads)
        assert watts.low is not None and watts.high is not None
        assert watts.low <= float(row["watts"]) <= watts.high, row


# -- measured runs ---------------------------------------------------------------------------


class Runs:
    """Writer of measured runs in a folder of results."""

    def __init__(self, results: Path) -> None:
        self.results = results

    def write(self, name: str, *steps: dict[str, Any], **more: Any) -> Path:
        folder = self.results / "zcu104" / name
        folder.mkdir(parents=True)
        facts = {"state": "done", "started": "x", "provider": "vart", "emulation": False,
                 "machine": {}, "model": {"name": "net", "target": "DPUCZDX8G"}}  # fmt: skip
        text = json.dumps({**facts, "steps": list(steps), **more})
        (folder / "run.json").write_text(text if steps else "{torn")
        return folder

    def step(
        self, watts: object, joules: object = None, threads: int = 1, scenario: str = "offline",
        concerns: Sequence[str] = (),
    ) -> dict[str, Any]:  # fmt: skip
        power = {"watts": {"value": watts}, "joules_per_frame": {"value": joules}}
        return {"name": scenario, "scenario": scenario, "threads": threads, "fps": {"value": None},
                "latency_ms": {}, "power": power,
                "concerns": [{"name": name, "text": "x"} for name in concerns]}  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_unusable_runs_measure_nothing(runs: Runs) -> None:
    runs.write("emulation", runs.step(5.0), emulation=True)
    runs.write("stand-in", runs.step(5.0), pace={"measured": False, "text": "predicted"})
    runs.write("strange pace", runs.step(5.0), pace=[])
    runs.write("torn")
    for number, odd in enumerate((None, "x", -1.0, float("nan"), float("inf"), True)):
        runs.write(f"odd {number}", runs.step(odd))
    found = board_power("zcu104", runs.results)
    assert found == board_power("zcu104", runs.results / "nothing")
    with pytest.raises(DpuError):
        board_power("zcu105", runs.results)


def test_runs_of_other_models_replace_the_estimate(runs: Runs) -> None:
    runs.write("real", runs.step(21.5), runs.step(24.0, 0.5, threads=4), runs.step(25, 0.4, 4))
    power = board_power("zcu104", runs.results, MODEL)
    assert power is not None and power.measured and "other models" in power.source
    assert power.watts(1).ends == (21.5, 21.5, 21.5) and power.watts(1).kind == MEASURED
    assert power.watts().ends == (24.5, 24.0, 25.0)
    estimate = board_power("zcu104", runs.results / "nothing")
    assert estimate is not None and power.watts(2) == estimate.watts(2), "no run has two threads"
    assert power.source_with(2) == f"{estimate.source}; measured only with 1 thread, 4 threads"
    found = network()
    joules = power.joules_per_frame(found)
    assert joules.value == pytest.approx(24.5 / found.fps()) and joules.kind == PREDICTED


def test_runs_of_the_same_model_give_its_energy(runs: Runs) -> None:
    runs.write("other", runs.step(30.0, 0.9, threads=4))
    runs.write("own", runs.step(17.0, 0.002, 4), runs.step(18.0, 0.003, 4),
               model={"name": "net", "target": "x", "sha256": sha256_of(MODEL)})  # fmt: skip
    power = board_power("zcu104", runs.results, MODEL)
    assert power is not None and "this model" in power.source
    found = predict_file(MODEL, "zcu104")
    joules = power.joules_per_frame(found, 4)
    assert joules.ends == (0.0025, 0.002, 0.003) and joules.kind == MEASURED
    assert power.joules_per_frame(found, 1).kind == PREDICTED, "no run has one thread"
    facts = prediction_facts("x", found, power, [4])
    assert [t["joules_per_frame"]["kind"] for t in facts["threads"]].count(MEASURED) == 2
    assert facts["power"]["measured"]


@pytest.mark.parametrize("is_own", [True, False])
def test_a_run_with_one_thread_is_not_one_with_all_cores_busy(runs: Runs, is_own: bool) -> None:
    """A ZCU104 is measured with one thread by default; its DPU has two cores."""
    model = {"name": "net", "target": "x", "sha256": sha256_of(MODEL) if is_own else None}
    runs.write("default", runs.step(15.6, 0.0312), model=model)
    power = board_power("zcu104", runs.results, MODEL)
    estimate = board_power("zcu104", runs.results / "nothing")
    assert power is not None and estimate is not None
    found = predict_file(MODEL, "zcu104")
    assert power.watts(1).ends == (15.6, 15.6, 15.6) and power.watts(1).kind == MEASURED
    assert (power.joules_per_frame(found, 1).kind == MEASURED) is is_own
    assert not power.measured and power.watts() == estimate.watts()
    assert power.joules_per_frame(found) == estimate.joules_per_frame(found)
    assert power.source == f"{estimate.source}; measured only with 1 thread"
    lines = prediction_lines(prediction_facts("x", found, power))
    one, many = (line for line in lines if line.startswith("threads"))
    assert "bounds" in many and "bounds" not in one


def test_another_model_with_all_cores_busy_precedes_the_estimate(runs: Runs) -> None:
    runs.write("own", runs.step(15.6, 0.0312), model={"name": "net", "target": "x",
                                                      "sha256": sha256_of(MODEL)})  # fmt: skip
    runs.write("other", runs.step(19.0, 0.5, threads=2))
    power = board_power("zcu104", runs.results, MODEL)
    assert power is not None and power.measured and "1 step of other models" in power.source
    assert power.watts().value == 19.0
    assert power.joules_per_frame(predict_file(MODEL, "zcu104")).kind == PREDICTED
    assert "1 step of this model" in power.source_with(1) and power.watts(1).value == 15.6


def test_only_windows_of_offline_keep_the_dpu_busy(runs: Runs) -> None:
    quiet = [runs.step(14.4, threads=2, scenario=name) for name in ("server", "single-stream")]
    runs.write("run", runs.step(18.0, threads=2), *quiet)
    power = board_power("zcu104", runs.results)
    assert power is not None and power.watts().ends == (18.0, 18.0, 18.0)


@pytest.mark.parametrize("doubt", ["sensor", "throttled", "disturbed"])
def test_doubtful_watts_are_not_used(runs: Runs, doubt: str) -> None:
    doubtful = runs.step(30.0, threads=2, concerns=["short", doubt])
    folder = runs.write("doubtful", doubtful)
    power, estimate = (board_power("zcu104", path) for path in (runs.results, Path("nowhere")))
    assert power is not None and estimate is not None and power.watts() == estimate.watts()
    assert power.source == f"{estimate.source}; measured only with 2 threads ({doubt})"
    with pytest.raises(DpuError, match=f"cannot be used: {doubt}"):
        board_power("zcu104", given=[folder])
    runs.write("clean", runs.step(18.0, threads=2, concerns=["short"]))
    power = board_power("zcu104", runs.results)
    assert power is not None and power.watts().ends == (18.0, 18.0, 18.0)


def test_a_run_on_another_board_is_ignored_in_the_folder_of_a_board(runs: Runs) -> None:
    runs.write("foreign", runs.step(11.0, threads=2), machine={"board": "Some KV260"})
    assert board_power("zcu104", runs.results) == board_power("zcu104", Path("nowhere"))


@pytest.mark.parametrize("is_given", [True, False])
def test_a_comparison_made_from_a_run_does_not_count_again(runs: Runs, is_given: bool) -> None:
    pytest.importorskip("torch", reason="host/bench needs PyTorch")
    from tutelage.host.bench.dpu_rows import read_runs
    from tutelage.host.bench.subject import load_subject

    single = runs.step(15.0, scenario="single-stream", concerns=["disturbed"])  # not of Offline
    run = runs.write("run", runs.step(18.0, threads=2), runs.step(20.0, threads=2), single,
                     machine={"board": "ZynqMP ZCU104 RevC"}, started="2026-01-02")  # fmt: skip
    benches, subject = [], load_subject(DEMO_MODEL)
    for name in "ab":
        (row,) = read_runs([run], subject)
        benches.append(bench(runs.results / "bench" / name, row))
    given = [*benches, run] if is_given else []
    power = board_power("zcu104", runs.results, given=given)
    assert power is not None and power.watts().ends == (19.0, 18.0, 20.0)
    assert power.watts().n == 2
    power = board_power("zcu104", runs.results, given=benches)
    assert power is not None and power.watts().n == 1, "both are of one run"
    doubtful = runs.step(18.0, threads=2, concerns=["short", "throttled"])
    run = runs.write("hot", doubtful, machine={"board": "ZynqMP ZCU104 RevC"})
    (row,) = read_runs([run], subject)
    with pytest.raises(DpuError, match="cannot be used: throttled"):
        board_power("zcu104", given=[bench(runs.results / "hot", row)])


def comparison(folder: Path, where: str, kind: str = MEASURED) -> Path:
    """A bench.json with a row of a DPU."""
    watts, joules = Figure(17.5, n=1, unit="W"), Figure(0.004, unit="J")
    return bench(folder, BenchRow("dpu-1", "DPU", DPU, kind, where=where, threads=4, watts=watts,
                                  joules_per_frame=joules))  # fmt: skip


def bench(folder: Path, row: BenchRow) -> Path:
    """A bench.json of the demo."""
    checkpoint = str(read_description(DEMO_MODEL / DESCRIPTION).provenance["checkpoint_sha256"])
    results = bench_results(row, model=BenchModel("demo", checkpoint_sha256=checkpoint))
    folder.mkdir(parents=True)
    (folder / "bench.json").write_text(bench_text(results))
    return folder


def test_a_comparison_with_a_measured_dpu_counts(tmp_path: Path) -> None:
    comparison(tmp_path / "bench" / "1", "Xilinx ZynqMP ZCU104 revC")
    comparison(tmp_path / "bench" / "2", "Xilinx ZynqMP ZCU104 revC", PREDICTED)
    comparison(tmp_path / "bench" / "3", "some KV260")
    power = board_power("zcu104", tmp_path, MODEL)
    assert power is not None and len(power.steps) == 1 and "this model" in power.source
    assert power.joules_per_frame(predict_file(MODEL, "zcu104"), 4).value == 0.004


def test_given_runs_take_precedence_and_must_fit(runs: Runs) -> None:
    runs.write("found", runs.step(21.5, threads=2))
    elsewhere = Runs(runs.results / "elsewhere")
    given = elsewhere.write("given", elsewhere.step(19.0, threads=2))
    power = board_power("zcu104", runs.results, given=[given])
    assert power is not None and power.watts().value == 19.0
    foreign = elsewhere.write("foreign", elsewhere.step(19.0), machine={"board": "Some KV260"})
    bench = comparison(runs.results / "x", "some KV260")
    for path, text in ((foreign, "ZCU104"), (bench, "ZCU104"), (runs.results, "run.json")):
        with pytest.raises(DpuError, match=text):
            board_power("zcu104", runs.results, given=[path])


def test_nothing_known_is_none() -> None:
    assert board_power("ultra96v2", Path("nowhere")) is None
    empty = BoardPower(None, None, (), 1)
    assert empty.watts().value is None and empty.joules_per_frame(network()).value is None
    assert empty.joule_bounds(network()) is None
