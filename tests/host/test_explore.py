"""Which DenseNets fit a budget: the front, the verdicts, and that what is written trains."""

from __future__ import annotations

import csv
import json
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
from tutelage.host.explore.exploration import bits_lines, explore
from tutelage.host.explore.forecast import FITS, Budget, costs, forecast, pareto
from tutelage.host.explore.network_operations import network_operations
from tutelage.host.explore.space import DEMO, ExploreError, read_spec
from tutelage.host.networks import create
from tutelage.host.train.config import read_config, read_toml
from tutelage.host.train.data import DataSet, load
from tutelage.host.train.loop import train

SMALL = {"growth_rate": [4, 8], "depth": [2, [1, 2]], "stem": ["stride2", "stride4"]}


@pytest.fixture
def spec_file(tmp_path: Path, repo_root: Path) -> Any:
    """Writes a specification on the demo's images, changed by tables."""

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
def test_a_front_is_what_nothing_dominates(points: list[tuple[float, ...]]) -> None:
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
            assert name != "energy" or each.fits != "predicted"
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


def test_bits_cost_no_time_and_the_study_says_what_accuracy(repo_root: Path) -> None:
    told = bits_lines(read_spec(None), repo_root / "results" / "study.csv")
    assert "takes the same time" in told[0]
    assert "W8A8, qat: 87.11 % where float has 87.31 % (-0.20 points)" in told[-2]
    assert "not in the study" in bits_lines(read_spec(None), repo_root / "no.csv")[-1]


def test_what_is_written_trains_in_float_and_then_quantised(
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


def _data(path: str, size: int) -> tuple[DataSet, DataSet]:
    return load("folder", Path(path), "train", size), load("folder", Path(path), "test", size)


def test_everything_is_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "--latency", "0.6", "-o", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for said in (
        "no accuracy",
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
    assert "nothing on the front keeps the budget" in capsys.readouterr().out
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
        ({"explore": {"growth_rate": [0]}}, "whole number"),
        ({"explore": {"growth_rate": [True]}}, "whole number"),
        ({"explore": {"depth": [[]]}}, "layers of a block"),
        ({"explore": {"depth": ["3"]}}, "layers of a block"),
        ({"explore": {"stem": ["big"]}}, "stem 'big'"),
        ({"explore": {"stem": [["small"]]}}, "is none of"),
        ({"explore": {"compression": [1.5]}}, "compression"),
        ({"explore": {"bits": [[9, 8]]}}, "2 to 8 bits"),
        ({"explore": {"bits": [8]}}, "[weights, activations]"),
        ({"explore": {"float_training": {"epoch": 3}}}, "unknown key 'epoch'"),
        ({"explore": {"float_training": 3}}, "must be a table"),
        ({"explore": {"growth_rate": [*range(1, 200)], "depth": [*range(1, 120)]}}, "at most"),
        ({"explore": 3}, "must be tables"),
        ({"student": {"network": "resnet-8"}}, "no DenseNet preset"),
        ({"student": {"options": {"order": "pre"}}}, "norms"),
        ({"student": {"options": {"growth": 3}}}, "growth"),
        ({"method": "float"}, "quantises nothing"),
        ({"method": "qkd"}, "teacher"),
        ({"data": {"kind": "cifar10"}, "explore": {"size": [64]}}, "only a folder's"),
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
