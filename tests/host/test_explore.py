"""DenseNets within a budget: the front, the verdicts, and training of the written files."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")

from tutelage.__main__ import main
from tutelage.core.toml_file import to_toml
from tutelage.dpu.predict.latency import predict, read_board
from tutelage.host.explore.exploration import bits_lines, explore, notes
from tutelage.host.explore.forecast import FITS, Budget, Forecast, costs, forecast, pareto
from tutelage.host.explore.network_operations import network_operations
from tutelage.host.explore.sampling import (
    Sampling,
    Search,
    judged_accuracy,
    study_name,
    trained_trials,
)
from tutelage.host.explore.space import (
    DEMO,
    Candidate,
    ExploreError,
    configurations,
    read_spec,
)
from tutelage.host.networks import create
from tutelage.host.search.storage import Shared
from tutelage.host.train.config import read_config, read_toml
from tutelage.host.train.data import DataSet, load
from tutelage.host.train.loop import train
from tutelage.host.train.training_process import TrainingProcesses

SMALL = {"growth_rate": [4, 8], "depth": [2, [1, 2]], "stem": ["stride2", "stride4"]}


@pytest.fixture
def spec_file(tmp_path: Path, repo_root: Path) -> Any:
    """Writer of a specification for the demo's images, with changed tables."""

    def write(**tables: Any) -> Path:
        table = {
            "method": "qat",
            "seed": 3,
            "data": {"kind": "folder", "path": str(repo_root / "app" / "demo" / "images")},
            "student": {"network": "densenet-small", "options": {"dropout": 0.1}},
            "training": {"epochs": 1, "batch_size": 60},
            "quantisation": {"calibration_images": 60},
            "explore": {**SMALL, "bits": [[4, 8]], "float_training": {"lr": 0.1}},
            **tables,
        }
        path = tmp_path / "spec.toml"
        path.write_text(to_toml(table), encoding="utf-8")
        return path

    return write


coordinates = st.integers(0, 5).map(float)


@given(st.integers(1, 3).flatmap(lambda d: st.lists(st.tuples(*[coordinates] * d), max_size=40)))
def test_a_front_has_only_undominated_points(points: list[tuple[float, ...]]) -> None:
    front, table = pareto(points), np.array(points, np.float64)
    assert front == sorted(set(front))
    for position in range(len(points)):
        others = table[[other for other in front if other != position]]
        no_worse = (others <= table[position]).all(1) if len(others) else np.array([], bool)
        assert no_worse.any() != (position in front)  # equal points: one of them is a member


def test_a_forecast_is_the_prediction_of_the_network_in_torch() -> None:
    spec, board = read_spec(None), read_board("zcu104")
    for candidate in list(spec.candidates())[::60]:
        found = forecast(spec, candidate, board, None, Budget(threads=4))
        assert found is not None
        network = create("densenet", in_channels=1, **candidate.options)
        other = predict(network_operations(network, candidate.shape), board)
        assert found.latency.value == pytest.approx(1e3 * other.latency_seconds, rel=1e-12)
        assert found.fps.value == pytest.approx(other.fps(4), rel=1e-12)
        weights = sum(p.numel() for p in network.parameters() if p.dim() > 1)
        biases = sum(o.output[2] for o in other.operations if o.depth)
        assert found.parameters == weights + biases


@pytest.mark.slow
def test_the_verdicts_follow_the_ranges(tmp_path: Path) -> None:
    spec = read_spec(None)
    for name, value, budget in (
        ("latency", 0.6, Budget(latency_ms=0.6)),
        ("fps", 4000.0, Budget(fps=4000.0)),
        ("energy", 5.0, Budget(energy_mj=5.0)),
    ):
        found = explore(spec, budget, "zcu104", tmp_path / name)
        for each in found.forecasts:
            assert each.energy is not None
            figure = {"latency": each.latency, "fps": each.fps, "energy": each.energy}[name]
            assert figure.low is not None and figure.high is not None
            if name == "fps":
                worst, best = figure.low >= value, figure.high >= value
            else:
                worst, best = figure.high <= value, figure.low <= value
            assert (each.fits == "sure") == worst and (each.fits == "no") == (not best)
        within = [e for e in found.forecasts if e.fits in ("sure", "predicted")]
        best_one = max(within, key=lambda e: (e.macs, [-c for c in costs(e, found.budget)]))
        assert any(e.macs == best_one.macs for e in found.front)


@pytest.mark.slow
def test_two_budgets_are_both_kept(tmp_path: Path) -> None:
    found = explore(read_spec(None), Budget(latency_ms=0.6, fps=9000), "zcu104", tmp_path)
    alone = [explore(read_spec(None), budget, "zcu104", tmp_path / "one").forecasts
             for budget in (Budget(latency_ms=0.6), Budget(fps=9000))]  # fmt: skip
    for both, *each in zip(found.forecasts, *alone, strict=True):
        assert both.fits == max((one.fits for one in each), key=FITS.index)


def test_bits_cost_no_time_and_the_study_has_their_accuracy(repo_root: Path) -> None:
    lines = bits_lines(read_spec(None), repo_root / "results" / "study.csv")
    assert "takes the same time" in lines[0]
    assert "W8A8, qat: 87.11 %, float 87.31 % (-0.20 points)" in lines[-2]
    assert "not in the study" in bits_lines(read_spec(None), repo_root / "no.csv")[-1]


def test_written_configurations_train_in_float_and_then_quantised(
    spec_file: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    explored = {**SMALL, "bits": [[4, 8]], "size": [24, 32], "float_training": {"lr": 0.1}}
    path = spec_file(explore=explored)
    assert main(["explore", str(path), "--latency", "1", "-o", str(output), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    name, written = next(iter(facts["written"].items()))
    float_file, quantised_file = map(Path, written)
    table = read_toml(quantised_file)
    assert table["seed"] == 3 and table["student"]["options"]["dropout"] == 0.1
    assert table["quantisation"] == {"calibration_images": 60, "weights": 4, "activations": 8}
    assert read_config(float_file).training.lr == 0.1 != read_config(quantised_file).training.lr
    size = table["data"]["size"]
    assert f"-{size}x{size}-" in name and size in (24, 32)
    for file in (float_file, quantised_file):
        config = read_config(file)
        data = _data(config.data.path, size)
        result = train(config, output / file.stem, data=data)
        assert len(result.history) == 1 and np.isfinite(result.history[0]["loss"])


def test_a_float_run_has_no_settings_of_the_quantiser(spec_file: Any) -> None:
    own = {"damping": 0.1, "real_steps": 0.5, "freeze_oscillations": 0.02}
    spec = read_spec(spec_file(training={"epochs": 1, "batch_size": 60, **own}))
    in_float, quantised = configurations(spec, next(spec.candidates()), Path("out")).values()
    assert in_float["training"] == {"epochs": 1, "batch_size": 60, "lr": 0.1}
    assert own.items() <= quantised["training"].items()


def _data(path: str, size: int) -> tuple[DataSet, DataSet]:
    return load("folder", Path(path), "train", size), load("folder", Path(path), "test", size)


def test_everything_is_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "--latency", "0.6", "-o", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for said in (
        "not an accuracy",
        "not measured",
        "extrapolation",
        "8 bits",
        "sure*",
        "tutelage train",
    ):
        assert said in text
    with (tmp_path / "explore.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    space = DEMO["explore"]
    count = len(space["growth_rate"]) * len(space["depth"]) * len(space["stem"])
    assert len(rows) == count == len({row["name"] for row in rows})
    front = {row["name"] for row in rows if row["front"] == "True"}
    files = {path.stem.rpartition("-")[0] for path in tmp_path.glob("*.toml")}
    assert files <= front
    assert {row["fits"] for row in rows if row["name"] in files} <= {"sure", "predicted"}
    assert "<svg" in (tmp_path / "explore.svg").read_text(encoding="utf-8")


def test_a_budget_that_nothing_keeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "--fps", "1e6", "-o", str(tmp_path)]) == 1
    assert "no network on the front is predicted to fit" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.toml"))


def test_without_explore_a_float_run_has_the_default_space(spec_file: Any, tmp_path: Path) -> None:
    path = spec_file(method="float")
    table = read_toml(path)
    del table["explore"], table["quantisation"]
    path.write_text(to_toml(table), encoding="utf-8")
    spec = read_spec(path)
    assert len(list(spec.candidates())) == 189
    found = explore(spec, Budget(), "zcu104", tmp_path / "out", "parameters")
    assert all(len(files) == 1 for files in found.written.values())
    assert {each.fits for each in found.forecasts} == {""} and bits_lines(spec) == []


def test_maps_that_vanish_are_left_out(spec_file: Any, tmp_path: Path) -> None:
    path = spec_file(explore={"depth": [[1] * 3, [1] * 8], "size": [32]})
    found = explore(read_spec(path), Budget(), "zcu104", tmp_path / "out")
    assert (len(found.forecasts), found.skipped) == (1, 1)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"explore": {"growth": [8]}}, "no 'growth'"),
        ({"explore": {"growth_rate": 8}}, "must be a list"),
        ({"explore": {"growth_rate": []}}, "must be a list"),
        ({"explore": {"growth_rate": [0]}}, "is not an integer"),
        ({"explore": {"growth_rate": [True]}}, "is not an integer"),
        ({"explore": {"depth": [[]]}}, "blocks of 1 to"),
        ({"explore": {"depth": ["3"]}}, "blocks of 1 to"),
        ({"explore": {"stem": ["big"]}}, "stem 'big'"),
        ({"explore": {"stem": [["small"]]}}, "is not one of"),
        ({"explore": {"compression": [1.5]}}, "compression"),
        ({"explore": {"bits": [[9, 8]]}}, "2 to 8 bits"),
        ({"explore": {"bits": [8]}}, "[weights, activations]"),
        ({"explore": {"float_training": {"epoch": 3}}}, "unknown key 'epoch'"),
        ({"explore": {"float_training": 3}}, "must be a table"),
        ({"explore": {"growth_rate": [*range(1, 200)], "depth": [*range(1, 120)]}}, "at most"),
        ({"explore": 3}, "must be tables"),
        ({"student": {"network": "resnet-8"}}, "is not a DenseNet preset"),
        ({"student": {"options": {"order": "pre"}}}, "norms"),
        ({"student": {"options": {"growth": 3}}}, "growth"),
        ({"method": "float"}, "quantises nothing"),
        ({"method": "qkd"}, "teacher"),
        ({"data": {"kind": "cifar10"}, "explore": {"size": [64]}}, "only those of a folder"),
        ({"data": {"kind": "folder", "path": "/nowhere"}}, "/nowhere"),
    ],
)  # fmt: skip
def test_a_wrong_specification_is_one_line(
    spec_file: Any, tables: dict[str, Any], said: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(["explore", str(spec_file(**tables)), "-o", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("tutelage: ") and err.count("\n") == 1 and said in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [["--latency", "0"], ["--fps", "nan"], ["--energy", "-1"], ["--board", "zcu105"],
     ["--capacity", "accuracy"], ["--threads", "0"], ["nothing.toml"]],
)  # fmt: skip
def test_a_wrong_command_is_one_line(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explore", *options, "-o", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("tutelage: ") and err.count("\n") == 1


def test_energy_needs_a_known_power() -> None:
    spec = read_spec(None)
    with pytest.raises(ExploreError, match="power"):
        forecast(spec, next(spec.candidates()), read_board("zcu104"), None, Budget(energy_mj=5))


# -- candidates that Optuna samples ---------------------------------------------------------------


def _optuna() -> Any:
    return pytest.importorskip("optuna", reason="needs Optuna, which is not installed")


def test_more_than_can_be_predicted_one_by_one_is_sampled(
    spec_file: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _optuna()
    explored = {"growth_rate": [*range(1, 65)], "depth": [*range(1, 21)],
                "compression": [0.25, 0.5, 0.75, 1.0], "bottleneck": [1, 2, 3, 4, 5]}  # fmt: skip
    path = spec_file(explore=explored)
    command = ["explore", str(path), "-o", str(tmp_path / "out")]
    assert main(command) == 2
    assert "has 25,600 candidates" in capsys.readouterr().err
    found = [
        explore(read_spec(path), Budget(), "zcu104", tmp_path / name, sampling=Sampling(60))
        for name in "ab"
    ]
    assert 30 < len(found[0].forecasts) <= 60
    assert [e.candidate for e in found[0].front] == [e.candidate for e in found[1].front]  # by seed
    assert "some of 25,600 combinations" in " ".join(notes(found[0]))
    rows = (tmp_path / "a" / "explore.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + len(found[0].forecasts) and "accuracy" not in rows[0]


def test_samples_approach_the_front(tmp_path: Path) -> None:
    """NSGA-II's front from a third of the space dominates most random draws."""
    _optuna()
    spec = read_spec(None)
    whole = explore(spec, Budget(), "zcu104", tmp_path / "whole")
    some = explore(spec, Budget(), "zcu104", tmp_path / "some", sampling=Sampling(150))
    assert len(some.forecasts) < 100 < len(whole.forecasts)
    exact = {each.candidate for each in whole.front}
    assert {each.candidate for each in some.front} & exact
    known = {each.candidate: each for each in whole.forecasts}
    assert all(known[each.candidate] == each for each in some.forecasts)


def _start(repo_root: Path, *words: object) -> subprocess.Popen[str]:
    """Start a worker in a separate process, as on another machine."""
    command = [sys.executable, "-m", "tutelage", "explore", *map(str, words)]
    return subprocess.Popen(command, cwd=repo_root, env={**os.environ, "OMP_NUM_THREADS": "1"},
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


@pytest.mark.slow
def test_two_workers_share_the_trials_and_one_is_killed(
    spec_file: Any, repo_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _optuna()
    journal = tmp_path / "journal"
    command = [spec_file(), "--trials", "100", "--storage", f"journal:{journal}"]
    first, second = (_start(repo_root, *command, "-o", tmp_path / name) for name in "ab")
    end = time.monotonic() + 90
    while not (journal.exists() and _workers(journal) >= 2):
        assert time.monotonic() < end
        time.sleep(0.01)
    first.kill()
    first.communicate()
    _, errors = second.communicate()
    assert second.returncode == 0, errors
    assert main(["explore", *map(str, command), "-o", str(tmp_path / "c"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["trials"] == 100 and facts["candidates"] == 8  # all of this small space
    tables = [(tmp_path / name / "explore.csv").read_text() for name in "bc"]
    assert tables[0] == tables[1]


def _workers(journal: Path) -> int:
    """Count the workers that have completed a trial."""
    lines = [line for line in journal.read_bytes().splitlines(keepends=True) if line[-1:] == b"\n"]
    logs = [json.loads(line) for line in lines]
    return len({log["worker_id"] for log in logs if log["op_code"] == 6})


def test_each_candidate_is_trained_once_however_many_there_are(
    spec_file: Any, tmp_path: Path
) -> None:
    """A worker takes each candidate of a small space once; the training itself is left out."""
    _optuna()
    from tutelage.host.search.storage import open_study

    spec, budget, board = read_spec(spec_file()), Budget(latency_ms=0.3), read_board("zcu104")

    def predict(candidate: Candidate) -> Forecast | None:
        return forecast(spec, candidate, board, None, budget)

    fitting = {
        c.name for c in spec.candidates() if (f := predict(c)) and f.fits in ("sure", "predicted")
    }
    assert 2 < len(fitting) < spec.size
    search, sampling = Search(spec, budget, predict, "accuracy", "zcu104"), Sampling(spec.size)
    study = open_study("", study_name(search, sampling), ["minimize", "maximize"])
    taken = []
    with trained_trials(study, search, sampling, TrainingProcesses()) as trials:
        while (item := trials.take()) is not None:
            taken.append(item.candidate.name)
            result = {"accuracy": 50.0, "validation_accuracy": 30.0 + len(taken), "seconds": 1.0}
            assert trials.finish(item, result)
        assert not trials.is_open()  # although fewer than requested are within the budget
    assert sorted(taken) == sorted(fitting)
    judged = [trial.values[-1] for trial in study.trials if trial.values]
    assert sorted(judged) == [31.0 + number for number in range(len(taken))]
    assert judged_accuracy({"accuracy": 50.0, "validation_accuracy": None}) == 50.0


@pytest.mark.slow
def test_a_dead_workers_trial_is_trained_again(
    spec_file: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _optuna()
    from tutelage.host.search.storage import open_study

    path, shared = spec_file(), Shared(f"journal:{tmp_path / 'journal'}", 0.5)
    search = Search(read_spec(path), Budget(latency_ms=5.0), _none, "accuracy", "zcu104")
    sampling = Sampling(1, shared, epochs=1)
    dead = open_study(shared.url, study_name(search, sampling), ["minimize", "maximize"]).ask()
    params = {
        key: dead.suggest_categorical(key, choices)
        for key, choices in (
            ("growth_rate", ["4", "8"]),
            ("depth", ["2x2x2", "1x2"]),
            ("stem", ["stride2", "stride4"]),
        )
    }  # fmt: skip
    command = ["explore", str(path), "--latency", "5", "--capacity", "accuracy", "--trials", "1",
               "--epochs", "1", "--jobs", "1", "--lease", "0.5"]  # fmt: skip
    assert main([*command, "--storage", shared.url, "-o", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert "1 DenseNet trained" in out and "top-1 [%]" in out
    name = f"k{params['growth_rate']}-d{params['depth']}-{params['stem']}"
    assert name in err and [p.name for p in (tmp_path / "out" / "trained").glob(f"{name}-*")]
    with (tmp_path / "out" / "explore.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["name"].startswith(name) and 0 <= float(row["accuracy"]) <= 100
    assert read_config(tmp_path / "out" / "trained" / row["name"] / "config.toml").method == "float"


def _none(_candidate: Any) -> None:
    return None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--capacity", "accuracy"], "needs --trials"),
        (["--storage", "journal:x"], "with --trials"),
        (["--trials", "5", "--storage", "redis://x"], "unpickles"),
        (["--trials", "5", "--storage", "journal:x", "--lease", "0"], "must be positive"),
    ],
)
def test_missing_options_of_sampling_are_one_line(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _optuna()
    assert main(["explore", *options, "-o", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("tutelage: ") and err.count("\n") == 1 and words in err


def test_a_budget_that_no_network_keeps_trains_nothing(
    spec_file: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _optuna()
    command = ["explore", str(spec_file()), "--fps", "1e6", "--capacity", "accuracy", "--trials"]
    assert main([*command, "1", "-o", str(tmp_path / "out")]) == 2
    assert "no candidate was trained" in capsys.readouterr().err
