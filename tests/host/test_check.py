"""`tutelage check`: what is said of a network before any training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from tutelage.__main__ import main  # noqa: E402
from tutelage.dpu.compiler.board.graph import compile_for_board  # noqa: E402
from tutelage.dpu.predict.latency import predict_graph  # noqa: E402
from tutelage.dpu.xmodel.graph import Graph  # noqa: E402
from tutelage.host.check.refusals import refusals  # noqa: E402
from tutelage.host.compile.target import load_target  # noqa: E402
from tutelage.host.networks import create  # noqa: E402
from tutelage.host.quantise.student import Student  # noqa: E402
from tutelage.host.quantise.to_xmodel import to_quantised  # noqa: E402

B3136 = 0x101000016010406

NETS = """\
import torch
from torch import nn


class Bad(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.Mish()
        self.norm = nn.GroupNorm(2, 8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = self.act(self.conv(x))
        y = self.norm(x)
        x = torch.relu(x + torch.cumsum(y, 1))
        return self.fc(x.mean((2, 3)))


def body(*end, kernel=3, width=8):
    first = nn.Conv2d(3, width, kernel, padding=kernel // 2)
    return nn.Sequential(first, nn.ReLU(), *end)


def make(width=8, classes=10):
    return body(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes), width=width)


def wide():
    return body(nn.Flatten(), nn.Linear(8 * 24 * 24, 10))


def deep():
    return nn.Sequential(*[m for _ in range(5) for m in (nn.Conv2d(3, 3, 3), nn.Mish())])


def before():
    body = [m for _ in range(3) for m in (nn.ReLU(), nn.BatchNorm2d(3), nn.ReLU(),
                                          nn.Conv2d(3, 3, 3))]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))


def smooth():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, 10))


def large():
    return body(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10), kernel=17)


def branches(): return Branches()
class Branches(nn.Module):
    def forward(self, x): return x if x.sum() > 0 else -x
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / "nets.py")


def _check(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> dict[str, Any]:
    assert main(["check", *arguments, "--json"]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["accepted"] == (status == 0)
    return found


def _lines(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert main(["check", *arguments]) == status
    return capsys.readouterr().out


def test_all_refusals_with_their_places(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = _check(capsys, f"{nets}:Bad", "--input", "3x16x16", status=1)["refusals"]
    lines = NETS.splitlines()
    assert [(refused["text"].split()[-1], refused["at"]) for refused in found] == [
        ("Mish", "act"), ("GroupNorm", "norm"), ("cumsum", "cumsum"),
    ]  # fmt: skip
    for refused, code in zip(found, ("self.act(", "self.norm(", "cumsum("), strict=True):
        assert refused["file"] == "nets.py" and code in lines[refused["line"] - 1]
        assert refused["remedy"]
    text = _lines(capsys, f"{nets}:Bad", status=1)
    assert "not accepted" in text and "nets.py:14: the DPU cannot take Mish at act: use" in text
    assert refusals(create(f"{nets}:make"), (3, 8, 8)) == []


def test_many_of_a_kind_are_one_line(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = _lines(capsys, f"{nets}:deep", status=1)
    assert "the DPU cannot take Mish at 1, 3, 5 and 2 more: use" in text
    text = _lines(capsys, f"{nets}:before")
    notes = [line for line in text.splitlines() if "no convolution before this batch norm" in line]
    assert len(notes) == 1 and notes[0].endswith("(2 more of these)")


def test_an_average_over_more_than_the_banks_hold(
    capsys: pytest.CaptureFixture[str], nets: str
) -> None:
    found = _check(capsys, f"{nets}:make", "--input", "3x300x300", status=1)
    assert not found["refusals"]
    assert "its rows do not fit the DPU's banks" in [
        why["reason"] for why in found["on_cpu"].values()
    ]


def test_control_flow_on_values(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = _check(capsys, f"{nets}:branches", status=1)
    assert "cannot be traced" in found["refusals"][0]["text"]


def test_what_is_accepted_costs(capsys: pytest.CaptureFixture[str]) -> None:
    found = _check(capsys, "densenet-small", "--input", "1x28x28")
    assert found["input"] == [1, 28, 28] and not found["refusals"] and not found["on_cpu"]
    network = create("densenet-small", in_channels=1)
    assert found["parameters"] == sum(p.numel() for p in network.parameters())
    graph = to_quantised(Student(network, (1, 28, 28)), "network")
    model = compile_for_board(graph, load_target("zcu104").fingerprint)
    prediction = predict_graph(model.graph, "zcu104")
    assert found["latency_ms"]["value"] == 1e3 * prediction.latency_seconds
    assert found["memory"]["parameters"] == sum(len(part.parameters) for part in model.parts)
    text = _lines(capsys, "densenet-small", "--input", "1x28x28")
    assert text.startswith("densenet-small on zcu104: accepted\n") and "an image with one" in text


def test_what_goes_to_the_cpu(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (f"{nets}:large", "--input", "3x24x24")
    found = _check(capsys, *arguments, status=1)["on_cpu"]
    assert found["0"]["reason"] == "kernel 17x17, the DPU has 1 to 16"
    assert "--allow-cpu" in found["0"]["remedy"]
    found = _check(capsys, *arguments, "--allow-cpu")
    assert found["parts"] == 1 and found["on_cpu"]
    assert "accepted, 2 ops on the CPU" in _lines(capsys, *arguments, "--allow-cpu")


def test_a_dense_layer_over_a_wide_map(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The DPU multiplies no 24x24 map by a matrix in one layer: it is reshaped, or said."""
    main(["check", f"{nets}:wide", "--input", "3x24x24", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["accepted"] == (not found["on_cpu"])
    assert all("pool the map" in op["remedy"] for op in found["on_cpu"].values())


def test_activations_that_are_exchanged(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = (f"{nets}:smooth", "--input", "3x24x24")
    refused = _check(capsys, *given, status=1)["refusals"]
    assert [refusal["text"] for refusal in refused] == ["the DPU cannot take GELU"]
    found = _check(capsys, *given, "--replace", "gelu=relu,silu=hardswish")
    assert not found["refusals"] and "replaced gelu by relu in 1 places" in found["notes"][0]
    assert main(["check", *given, "--replace", "gelu=swoosh"]) == 2
    assert "gelu=swoosh is not known" in capsys.readouterr().err


def test_options_of_a_function(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = _check(capsys, f"{nets}:make", "--option", "width=32", "--option", "classes = 3")
    assert found["parameters"] == 32 * 28 + 33 * 3


def test_weights_and_images(
    nets: str, capsys: pytest.CaptureFixture[str], repo_root: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = create(f"{nets}:make")
    torch.save({"state_dict": network.state_dict()}, tmp_path / "w.pth")
    given = (f"{nets}:make", "--input", "3x28x28", "--weights", "w.pth", "--limit", "40")
    assert _check(capsys, *given)["accuracy"] is None
    images = repo_root / "app/demo/images"
    found = _check(capsys, *given, "--images", str(images))["accuracy"]
    assert found["images"] == 40 and found["agreement"] > 80
    assert abs(found["float_accuracy"] - found["quantised_accuracy"]) <= 100 - found["agreement"]
    of_one = _check(capsys, *given, "--images", str(images / "Bag"))["accuracy"]
    assert of_one["float_accuracy"] is None and of_one["quantised_accuracy"] is None
    text = _lines(capsys, *given, "--images", str(images), "--mean", "0.5", "--std", "0.25")
    assert "% of 40 images; right: float" in text


def test_a_planned_run(
    nets: str, capsys: pytest.CaptureFixture[str], repo_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run.toml"
    text = f"""\
method = "METHOD"
[data]
kind = "folder"
path = "{repo_root / "app/demo/images"}"
[student]
network = "nets.py:make"
weights = "w.pth"
"""
    run.write_text(text.replace("METHOD", "qat"))
    found = _check(capsys, "run.toml")
    assert found["accuracy"] is None and found["input"] == [3, 28, 28]
    assert "w.pth is not there yet" in found["notes"][0]
    torch.save(create("nets.py:make").state_dict(), tmp_path / "w.pth")
    assert _check(capsys, "run.toml", "--limit", "30")["accuracy"]["images"] == 30
    assert _check(capsys, "run.toml", "--input", "3x40x40")["input"] == [3, 40, 40]
    run.write_text(text.replace("METHOD", "float").replace('weights = "w.pth"\n', ""))
    assert _check(capsys, "run.toml")["accuracy"] is None


def test_files(demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compiled = _check(capsys, str(demo_model))
    quantised = _check(capsys, str(demo_model.with_name("quantised.xmodel")))
    assert (compiled["kind"], quantised["kind"]) == ("compiled", "quantised")
    assert compiled["memory"] == quantised["memory"] and compiled["macs"] == quantised["macs"]
    model = compile_for_board(Graph.deserialize(demo_model.with_name("quantised.xmodel")), B3136)
    model.graph.serialize(tmp_path / "other.xmodel")
    other = _check(capsys, str(tmp_path / "other.xmodel"), status=1)
    assert "compiled for DPUCZDX8G_ISA1_B3136" in other["refusals"][0]["text"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["densenet-smal"], "did you mean 'densenet-small'"),
        (["none.xmodel"], "none.xmodel"),
        (["none.toml"], "none.toml"),
        (["densenet-small", "--input", "28"], "input '28' is no CxHxW"),
        (["densenet-small", "--board", "zx81"], "zx81"),
        (["densenet-small", "--option", "width"], "--option width: write KEY=VALUE"),
        (["densenet-small", "--images", "."], "--images compares a trained network"),
        (["densenet-small", "--weights", "none.pth"], "none.pth: no such file"),
        (
            ["nets.py:make", "--input", "1x28x28", "--weights", "w.pth", "--images", "."],
            "--input 1x28x28: --images gives pictures of 3 channels",
        ),
        (["run.toml", "--skip", "fc."], "--skip is for networks; run.toml has its own"),
        (["run.toml", "--mean", "0.5", "--std", "0.5"], "--mean is for networks"),
        (["nets.py:make", "--option", "depth=3"], "unexpected keyword argument 'depth'"),
    ],
)
def test_wrong_use(
    arguments: list[str], words: str, nets: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments]) == 2
    out, err = capsys.readouterr()
    assert not out and words in err and err.startswith("tutelage: ") and err.count("\n") == 1
