"""`python -m dpu diff A B`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpu.__main__ import main
from dpu.builder import CompiledModel
from dpu.compile import compile_graph
from dpu.xir import Graph
from tests.dpu.test_layers import small_network


def _diff(
    capsys: pytest.CaptureFixture[str], a: Path, b: Path, *options: str
) -> tuple[int, dict[str, Any]]:
    status = main(["diff", str(a), str(b), "--json", *options])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["equal"] == (status == 0)
    return status, found


def _network(path: Path, **changes: Any) -> Path:
    given: dict[str, Any] = {"weight": 3, "point": 2, "channels": 4, "nonlinear": "NONE", "pool": 2}
    given |= changes
    model = CompiledModel("net")
    x = model.input("image", (1, 8, 8, 2), 4)
    weights = np.full((given["channels"], 1, 1, 2), 3, np.int8)
    weights[0, 0, 0] = given["weight"]
    bias = np.zeros(given["channels"], np.int8)
    x = model.conv2d("conv", x, weights, 5, bias, 4, given["point"], nonlinear=given["nonlinear"])
    if given["pool"]:
        x = model.max_pool("pool", x, [given["pool"]] * 2, [2, 2])
    model.output(x)
    model.save(path)
    return path


def test_a_file_equals_itself(demo_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(demo_model), str(demo_model)]) == 0
    assert "equal: 83 ops" in capsys.readouterr().out
    status, found = _diff(capsys, demo_model, demo_model, "--layers")
    assert status == 0 and found["matched"] == 36


def test_weights_that_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = _network(tmp_path / "a.xmodel"), _network(tmp_path / "b.xmodel", weight=-9)
    for options, name in (((), "conv_weights"), (("--layers",), "conv weights")):
        status, found = _diff(capsys, a, b, *options)
        assert status == 1 and not found["differences"]
        assert found["weights"] == [{"name": name, "count": 2, "of": 8, "largest": 12.0}]
    assert main(["diff", str(a), str(b)]) == 1
    assert "conv_weights: 2 of 8 values differ, by at most 12" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"point": 3}, "fix point"),
        ({"channels": 5}, "shape"),
        ({"nonlinear": "RELU"}, "nonlinear"),
        ({"pool": 3}, "kernel"),
    ],
)
def test_what_may_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], what: str
) -> None:
    a, b = _network(tmp_path / "a.xmodel"), _network(tmp_path / "b.xmodel", **changes)
    for options in ((), ("--layers",)):
        status, found = _diff(capsys, a, b, *options)
        assert status == 1
        assert any(what in one["what"] for one in found["differences"])


def test_layers_that_one_file_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = _network(tmp_path / "a.xmodel"), _network(tmp_path / "b.xmodel", pool=0)
    status, found = _diff(capsys, a, b, "--layers")
    assert status == 1 and found["only_in_a"] == ["maxpool2d pool"] and found["only_in_b"] == []
    assert main(["diff", str(a), str(b)]) == 1
    assert "only in A: pool-fix pool" in capsys.readouterr().out


def test_a_quantised_file_and_what_it_was_compiled_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantised = small_network()
    compiled = compile_graph(quantised)
    quantised.serialize(tmp_path / "q.xmodel")
    compiled.serialize(tmp_path / "c.xmodel")
    status, found = _diff(capsys, tmp_path / "q.xmodel", tmp_path / "c.xmodel")
    assert (status, found["compared"], found["matched"]) == (0, "layers", 6)
    assert found["forms"] == ["quantised", "compiled"]
    broken = Graph.deserialize(tmp_path / "c.xmodel")
    part = next(
        part
        for part in broken.get_root_subgraph().get_children()
        if part.has_attr("reg_id_to_parameter_value")
    )
    data = part.get_attr("reg_id_to_parameter_value")
    data["REG_0"] = bytes([data["REG_0"][0] ^ 1]) + data["REG_0"][1:]
    broken.serialize(tmp_path / "c.xmodel")
    status, found = _diff(capsys, tmp_path / "q.xmodel", tmp_path / "c.xmodel")
    assert status == 1 and [(w["count"], w["largest"]) for w in found["weights"]] == [(1, 1.0)]


def test_amds_pair(shared_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """PointPillars by AMD's quantiser and by AMD's compiler: one network."""
    files = ("pointpillars_quantized.xmodel", "pointpillars_zcu104_vai25.xmodel")
    a, b = (shared_dir / "models" / name for name in files)
    status, found = _diff(capsys, a, b)
    assert status == 0 and found["matched"] == 30 and not found["matched_by_order"]


def test_other_connections_are_no_equal_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for swapped in (False, True):
        model = CompiledModel("net")
        x = model.input("image", (1, 2, 2, 2), 4)
        ones = np.ones((2, 1, 1, 2), np.int8)
        parts = [model.conv2d(name, x, ones, 4, None, 0, 4) for name in ("left", "right")]
        model.output(model.concat("join", parts[::-1] if swapped else parts))
        paths.append(tmp_path / f"{swapped}.xmodel")
        model.save(paths[-1])
    for options in ((), ("--layers",)):
        status, found = _diff(capsys, paths[0], paths[1], *options)
        assert status == 1 and [one["what"] for one in found["differences"]] == ["inputs"]


def test_names_lose_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for number, name in enumerate(("red\x1b[31m", "bell\x07\n\u202e")):
        model = CompiledModel(name)
        x = model.input("image", (1, 1, 1, 1), 4)
        model.output(model.conv2d(name, x, np.ones((1, 1, 1, 1), np.int8), 4, None, 0, 4))
        paths.append(tmp_path / f"{number}.xmodel")
        model.save(paths[-1])
    assert main(["diff", *map(str, paths)]) == 1
    text = capsys.readouterr().out
    assert all(line.isprintable() for line in text.splitlines())
    assert "only in A: conv2d-fix red?[31m" in text and "only in B: conv2d-fix bell???" in text
    assert _diff(capsys, paths[0], paths[1])[1]["only_in_a"] == [
        "const-fix red\x1b[31m_weights",
        "conv2d-fix red\x1b[31m",
        "download red\x1b[31m_download_0",
        "fix2float red\x1b[31m_float",
    ]


def test_bad_files(demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.xmodel"
    bad.write_bytes(demo_model.read_bytes()[:1000])
    for pair in ((demo_model, bad), (bad, demo_model), (demo_model, tmp_path / "none.xmodel")):
        assert main(["diff", *map(str, pair)]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
