"""`tutelage diff A B`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.dpu.dense_forms import DENSE_FORMS, dense_network
from tests.dpu.test_layers import small_network
from tutelage.__main__ import main
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.compiler.emulation import compile_graph
from tutelage.dpu.compiler.quantised import QuantisedModel
from tutelage.dpu.engine.reference import load_engine
from tutelage.dpu.xmodel.graph import Graph


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
def test_differences_that_are_reported(
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


def test_a_quantised_file_and_its_compiled_form(
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


def test_other_connections_are_another_network(
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


def test_names_show_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert r"only in A: conv2d-fix red\x1b[31m" in text
    assert r"only in B: conv2d-fix bell\x07\n\u202e" in text
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


def _saved(path: Path, form: str, flip: int = 0) -> Path:
    dense_network(form, flip).serialize(path)
    return path


@pytest.mark.parametrize("kind", DENSE_FORMS[1:])
def test_dense_layers_of_all_forms_are_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """The outputs of all forms agree; a single changed weight is found in each."""
    a, b = _saved(tmp_path / "a.xmodel", "hwc"), _saved(tmp_path / "b.xmodel", kind)
    image = np.random.default_rng(0).integers(-128, 128, (9, 3, 2, 2)).astype(np.float32) / 32
    first, second = (load_engine(path, "reference").run(image) for path in (a, b))
    np.testing.assert_array_equal(first.reshape(9, 5), second.reshape(9, 5))
    assert len(np.unique(first)) > 20
    status, found = _diff(capsys, a, b, "--layers")
    assert status == 0, found
    other = _saved(tmp_path / "c.xmodel", kind, flip=2)
    status, found = _diff(capsys, a, other, "--layers")
    assert status == 1 and not found["differences"] and not found["only_in_a"]
    assert [(w["name"], w["count"], w["largest"]) for w in found["weights"]] == [
        ("dense weights", 1, 2.0)
    ]


def test_a_dense_layer_of_a_map_in_another_order_is_another_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same bytes after a transpose are another matrix."""
    a, b = _saved(tmp_path / "a.xmodel", "hwc"), _saved(tmp_path / "b.xmodel", "chw")
    graph = Graph.deserialize(b)
    reshape, transpose = graph.get_op("flat"), graph.get_op("chw")
    graph.replace_input(reshape, transpose, graph.get_op("conv_fix"))
    graph.remove_op(transpose)
    graph.serialize(b)
    status, found = _diff(capsys, a, b, "--layers")
    assert status == 1 and [w["name"] for w in found["weights"]] == ["dense weights"]


def test_a_bias_that_the_compiler_shifted_is_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """p_in + p_w - p_bias is -3: the accumulator's half steps are four of the bias's steps."""
    paths, weights = (tmp_path / "q.xmodel", tmp_path / "c.xmodel"), np.ones((4, 1, 1, 2), np.int8)
    quantised = QuantisedModel("net")
    x = quantised.input("image", (1, 2, 2, 2), 4)
    bias = np.array([90, -90, 7, -1], np.int8)
    quantised.output(quantised.conv2d("conv", x, weights, 5, bias, 12, 2))
    quantised.finish().serialize(paths[0])
    for values, status in (([22, -23, 1, -1], 0), ([23, -22, 2, 0], 0), ([23, -24, 2, 0], 1)):
        model = CompiledModel("net")
        x = model.input("net__image", (1, 2, 2, 2), 4)
        shifted = np.array(values, np.int8) << 2  # which the writer takes back
        model.output(model.conv2d("net__conv", x, weights, 5, shifted, 12, 2))
        model.save(paths[1])
        for pair in (paths, paths[::-1]):
            returned, found = _diff(capsys, *pair)
            assert returned == status and bool(found["weights"]) == bool(status), values


def test_a_step_that_is_never_made_makes_no_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def net(path: Path, stride: list[int], size: int = 8) -> Path:
        model = CompiledModel("net")
        x = model.input("image", (1, size, 8, 2), 4)
        model.output(model.max_pool("pool", x, [8, 8], stride))
        model.save(path)
        return path

    a, b = net(tmp_path / "a.xmodel", [8, 8]), net(tmp_path / "b.xmodel", [1, 1])
    assert _diff(capsys, a, b, "--layers")[0] == 0
    assert _diff(capsys, a, b)[0] == 1  # the ops' attributes do differ
    a, b = net(tmp_path / "a.xmodel", [8, 8], 16), net(tmp_path / "b.xmodel", [1, 8], 16)
    assert _diff(capsys, a, b, "--layers")[0] == 0
    b = net(tmp_path / "b.xmodel", [8, 4], 16)
    what = [one["what"] for one in _diff(capsys, a, b, "--layers")[1]["differences"]]
    assert "stride" in what


TWINS = [
    ("corpus/mnist_cnn_quantised", "corpus/mnist_cnn_zcu104", 6),
    ("pointpillars_quantized", "pointpillars_zcu104_vai25", 30),
]


@pytest.mark.parametrize("a, b, layers", TWINS)
def test_amds_twins_are_equal(
    shared_dir: Path, capsys: pytest.CaptureFixture[str], a: str, b: str, layers: int
) -> None:
    models = shared_dir / "models"
    status, found = _diff(capsys, models / f"{a}.xmodel", models / f"{b}.xmodel")
    assert status == 0 and found["matched"] == layers
    status, _ = _diff(capsys, models / f"{b}.xmodel", models / f"{a}.xmodel")
    assert status == 0


def test_the_weights_of_another_dpu_are_not_compared(
    shared_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One architecture in two forms, including matmul and conv2d, and pool + mul and a pool."""
    corpus = shared_dir / "models" / "corpus"
    for a, b, layers in (
        ("cifar_resnet_quantised", "cifar_resnet_board", 33),
        ("mnist_cnn_quantised", "mnist_cnn_vck190", 6),
    ):
        status, found = _diff(capsys, corpus / f"{a}.xmodel", corpus / f"{b}.xmodel")
        assert status == 1 and found["matched"] == layers
        assert not found["differences"] and not found["only_in_a"] and not found["only_in_b"]
        (line,) = found["not_compared"]
        assert line.startswith(
            "weights and biases, which B stores in the order of DPUCVDX8G (VCK190"
        )
    path = str(corpus / "ssd_pedestrian_u50.xmodel")
    assert main(["diff", path, path]) == 0
    assert main(["diff", path, str(corpus / "mnist_cnn_quantised.xmodel")]) == 1
    other = str(corpus / "mnist_cnn_vck190.xmodel")
    assert main(["diff", other, str(corpus / "mnist_cnn_zcu104.xmodel")]) == 1
    text = capsys.readouterr().out
    assert (
        "attribute dpu_fingerprint: DPUCVDX8G (VCK190, fingerprint 0x603000b56011861) -> " in text
    )
    assert "attribute reg_id_to_parameter_value: REG_0: 39,680 bytes" in text
