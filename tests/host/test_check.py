"""`tutelage check`: the report about a network before any training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from tutelage.__main__ import main  # noqa: E402
from tutelage.dpu.compiler.board.graph import compile_for_board  # noqa: E402
from tutelage.dpu.predict.latency import predict_graph  # noqa: E402
from tutelage.dpu.xmodel.graph import Graph  # noqa: E402
from tutelage.host.check.accuracy import Accuracy, compare  # noqa: E402
from tutelage.host.check.advice import about_accuracy  # noqa: E402
from tutelage.host.check.refusals import refusals  # noqa: E402
from tutelage.host.compile.target import load_target  # noqa: E402
from tutelage.host.networks import create  # noqa: E402
from tutelage.host.quantise.student import Student  # noqa: E402
from tutelage.host.quantise.to_xmodel import to_quantised  # noqa: E402
from tutelage.host.train.data import load  # noqa: E402
from tutelage.host.train.evaluation import accuracy  # noqa: E402

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


def grey():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, 10))


def offered(num_classes=10): return make(classes=num_classes)


class Viewed(nn.Module):
    def forward(self, x): return x.view(2, 100)


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
    assert "not accepted" in text and "nets.py:14: the DPU does not support Mish at act: " in text
    assert refusals(create(f"{nets}:make"), (3, 8, 8)) == []


def test_many_of_a_kind_are_one_line(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = _lines(capsys, f"{nets}:deep", status=1)
    assert "the DPU does not support Mish at 1, 3, 5 and 2 more: use" in text
    text = _lines(capsys, f"{nets}:before")
    notes = [line for line in text.splitlines() if "no convolution before this batch norm" in line]
    assert len(notes) == 1 and notes[0].endswith("(2 more of these)")


def test_an_average_over_more_than_the_banks_hold(
    capsys: pytest.CaptureFixture[str], nets: str
) -> None:
    found = _check(capsys, f"{nets}:make", "--input", "3x300x300", status=1)
    assert not found["refusals"]
    pool, factor = sorted(found["on_cpu"].values(), key=lambda one: len(one["remedy"]))[::-1]
    assert pool["reason"] == "the rows do not fit the DPU's banks"
    assert "dense" not in pool["remedy"] and "average in two steps" in pool["remedy"]
    assert factor["remedy"] == "change the op before it"


def test_control_flow_on_values(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = _check(capsys, f"{nets}:branches", status=1)
    assert "cannot be traced" in found["refusals"][0]["text"]


def test_an_accepted_network_has_a_cost(capsys: pytest.CaptureFixture[str]) -> None:
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
    assert text.startswith("densenet-small on zcu104: accepted\n") and "per image with one" in text


def test_layers_on_the_cpu(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (f"{nets}:large", "--input", "3x24x24")
    found = _check(capsys, *arguments, status=1)["on_cpu"]
    assert found["0"]["reason"] == "kernel 17x17; the DPU supports 1 to 16"
    assert "--allow-cpu" in found["0"]["remedy"]
    found = _check(capsys, *arguments, "--allow-cpu")
    assert found["parts"] == 1 and found["on_cpu"]
    assert "accepted, 2 ops on the CPU" in _lines(capsys, *arguments, "--allow-cpu")


def test_a_dense_layer_over_a_wide_map(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The DPU cannot compute a dense layer over a 24x24 map directly: it is reshaped or refused."""
    main(["check", f"{nets}:wide", "--input", "3x24x24", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["accepted"] == (not found["on_cpu"])
    assert all("pool the map" in op["remedy"] for op in found["on_cpu"].values())


def test_activations_that_are_exchanged(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = (f"{nets}:smooth", "--input", "3x24x24")
    refused = _check(capsys, *given, status=1)["refusals"]
    assert [refusal["text"] for refusal in refused] == ["the DPU does not support GELU"]
    found = _check(capsys, *given, "--replace", "gelu=relu,silu=hardswish")
    assert not found["refusals"] and "replaced gelu by relu in 1 place (1)" in found["notes"][0]
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
    assert "% of 40 images correct\n" in text and "  quantised   without training: " in text
    assert found["replaced_agreement"] is None and "replacement" not in text


def test_replacements_are_counted_apart(
    nets: str, capsys: pytest.CaptureFixture[str], repo_root: Path
) -> None:
    """The loss from another activation is not attributed to quantisation."""
    given = [*_saved(nets, "smooth"), str(repo_root / "app/demo/images"), "--replace", "gelu=relu"]
    test = load("folder", repo_root / "app/demo/images", "test", 28)
    network: Any = create(f"{nets}:smooth").eval()
    with torch.no_grad():  # so that it does not give one class for all images
        network[4].bias -= network(test.inputs()).mean(0)
    torch.save(network.state_dict(), "w.pth")
    floating = accuracy(network, test)
    network[1] = torch.nn.ReLU()
    found = _check(capsys, *given)["accuracy"]
    assert found["images"] == len(test)
    assert found["float_accuracy"] == pytest.approx(floating, abs=0.01)
    assert found["replaced_accuracy"] == pytest.approx(accuracy(network, test), abs=0.01)
    assert found["quantised_agreement"] > max(found["replaced_agreement"], 85)
    text = _lines(capsys, *given)
    assert "  replaced    float, with the replacements: " in text
    assert "same class as the replaced network for" in text and "in 1 place (1)" in text
    both = list(about_accuracy(Accuracy(100, 70.0, 80.0, 72.0, 80.0, 75.0, 95.0)))
    assert [line[:33] for line in both] == [
        "5.0 points of accuracy are lost b", "3.0 points of accuracy are lost b",
    ]  # fmt: skip
    assert "by the replacements, before" in both[0] and "by quantisation alone" in both[1]
    (unlabelled,) = about_accuracy(Accuracy(100, 70.0, None, None, 75.0, None, 99.5))
    assert unlabelled.startswith("25.0 % of the images change class by the replacements")


def _pictures(source: Path, folder: Path, classes: int, each: int) -> Path:
    """Some classes of the demo's images, with a number of images of each."""
    for place in sorted(source.iterdir())[:classes]:
        (folder / place.name).mkdir(parents=True)
        for path in sorted(place.glob("*.png"))[:each]:
            shutil.copy(path, folder / place.name)
    return folder


def _saved(nets: str, maker: str = "make") -> tuple[str, ...]:
    torch.manual_seed(0)
    torch.save(create(f"{nets}:{maker}").state_dict(), "w.pth")
    return (f"{nets}:{maker}", "--input", "3x28x28", "--weights", "w.pth", "--images")


def test_folders_of_another_number_of_classes(
    nets: str, capsys: pytest.CaptureFixture[str], repo_root: Path, tmp_path: Path
) -> None:
    pictures = _pictures(repo_root / "app/demo/images", tmp_path / "three", 3, 5)
    assert main(["check", *_saved(nets, "offered"), str(pictures)]) == 2
    assert capsys.readouterr().err == (
        "tutelage: w.pth: the weights are for 10 classes, the images have 3 (Ankle boot, Bag, "
        "Coat): give images of the same classes in the same order, or train a new last layer with "
        'skip = ["4."]\n'
    )
    assert main(["check", *_saved(nets), str(pictures)]) == 2
    assert "returns 10 values for an image, but the data has 3 classes" in capsys.readouterr().err
    given = (*_saved(nets, "offered")[:-1], "--option", "num_classes=7")
    assert main(["check", *given]) == 2
    assert "weights are for 10 classes, this network has 7 outputs: give it the option for 10" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(("each", "count"), [(1, 10), (2, 10), (4, 10)])
def test_very_few_pictures(
    each: int, count: int, nets: str, capsys: pytest.CaptureFixture[str], repo_root: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    pictures = _pictures(repo_root / "app/demo/images", tmp_path / "few", 10, each)
    found = _check(capsys, *_saved(nets), str(pictures))
    # With one image per class, nine of ten calibrate, and labels are not used.
    assert found["accuracy"]["images"] == (count if each > 1 else 2)
    assert (found["accuracy"]["float_accuracy"] is None) == (each == 1)
    notes = ["one image per class is too few to use the labels"] * (each == 1)
    assert len(found["notes"]) == len(notes)
    assert all(words in note for words, note in zip(notes, found["notes"], strict=True))


def test_a_broken_picture_on_the_disk_is_left_out(repo_root: Path, tmp_path: Path) -> None:
    pictures = _pictures(repo_root / "app/demo/images", tmp_path / "some", 10, 5)
    data = load("folder", pictures, "test", memory=0)
    data.files[3].write_bytes(b"no picture")
    torch.manual_seed(0)
    network = create("densenet-tiny").eval()
    found = compare(network, network, data, True)
    rest = data.subset(torch.tensor([0, 1, 2, 4, 5, 6, 7, 8, 9]))
    assert (found.images, found.agreement) == (len(rest), 100)
    assert found.float_accuracy == pytest.approx(accuracy(network, rest), abs=0.01)


def test_one_picture(nets: str, capsys: pytest.CaptureFixture[str], repo_root: Path) -> None:
    first = min((repo_root / "app/demo/images/Bag").glob("*.png"))
    Path("one").mkdir()
    shutil.copy(first, "one")
    assert "100.00 % of 1 image\n" in _lines(capsys, *_saved(nets), "one")


def test_pictures_of_a_grey_network(
    nets: str, capsys: pytest.CaptureFixture[str], repo_root: Path
) -> None:
    network, _, _, *given = _saved(nets, "grey")
    pictures = str(repo_root / "app/demo/images")
    found = _check(capsys, network, "--input", "1x28x28", *given, pictures)
    assert found["input"] == [1, 28, 28] and found["accuracy"]["float_accuracy"] is not None
    assert main(["check", network, "--input", "3x28x28", *given, pictures]) == 2
    error = capsys.readouterr().err
    assert "takes images of 1 channel, those of the data have 3" in error


@pytest.mark.parametrize(
    ("network", "size", "refused"),
    [
        ("wide", "3x28x28", ("Linear takes 4,608 values and gets 6,272", "3")),
        ("grey", "3x28x28", ("Conv2d takes 1 channel and gets 3", "0")),
    ],
)
def test_an_input_of_another_size(
    network: str, size: str, refused: tuple[str, str], nets: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (found,) = _check(capsys, f"{nets}:{network}", "--input", size, status=1)["refusals"]
    assert found["text"].endswith(f"fails on an input of {size}: {refused[0]}")
    assert found["at"] == refused[1] and "that it was made for" in found["remedy"]


def test_a_forward_that_fails(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = _lines(capsys, f"{nets}:Viewed", "--input", "3x28x28", status=1)
    assert "RuntimeError: shape '[2, 100]' is invalid" in text and "nets.py:" in text
    assert "branch" not in text


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
    assert "w.pth does not exist yet" in found["notes"][0]
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
        (["densenet-small", "--input", "28"], "input '28' is not CxHxW"),
        (["densenet-small", "--board", "zx81"], "zx81"),
        (["densenet-small", "--option", "width"], "--option width: give KEY=VALUE"),
        (["densenet-small", "--images", "."], "--images compares a trained network"),
        (["densenet-small", "--weights", "none.pth"], "none.pth: no such file"),
        (
            ["nets.py:make", "--input", "4x28x28", "--weights", "w.pth", "--images", "."],
            "--input 4x28x28: the pictures of --images have 3 channels, or 1 in grey",
        ),
        (["run.toml", "--skip", "fc."], "--skip is for networks only; set it in run.toml instead"),
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
