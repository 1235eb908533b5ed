"""Checkpoint to model directory to compiled file to app: equal at every step."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")

import torch

from tutelage.__main__ import main
from tutelage.app.model import load_classifier
from tutelage.core.model_package import read_description
from tutelage.dpu.engine.reference import load_engine
from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.compile.compilation import CompileOptions, compile_model, plan_compile
from tutelage.host.export.model_directory import ExportError, export, load_student, read_state
from tutelage.host.export.onnx_qdq import to_onnx
from tutelage.host.networks import create
from tutelage.host.quantise.calibrate import calibrate
from tutelage.host.quantise.quantisers import Bits
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.to_xmodel import to_quantised
from tutelage.host.train.config import Config, make_config
from tutelage.host.train.data import DataSet, load
from tutelage.host.train.data.formats.idx import DEFAULT_IDX
from tutelage.host.train.loop import train


def _config(folder: Path, repo_root: Path, **changes: Any) -> Config:
    """Two steps of QAT of a tiny DenseNet on the demo's images."""
    table: dict[str, Any] = {
        "method": "qat",
        "data": {"kind": "folder", "path": str(repo_root / "app" / "demo" / "images")},
        "student": {"network": "densenet-tiny", "weights": str(folder / "float.safetensors")},
        "training": {"epochs": 1, "batch_size": 100},
    }
    return make_config(table | changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Path:
    """The directory of a finished run."""
    from tutelage.host.train import checkpoint

    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    data = load("folder", repo_root / "app" / "demo" / "images", "train")
    network = create("densenet-tiny", in_channels=data.shape[0])
    checkpoint.save(folder / "float.safetensors", {"student": network.state_dict()}, {"config": {}})
    train(_config(folder, repo_root), folder / "qat")
    return folder / "qat"


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    figures = export(run, folder)
    assert figures["logits_equal"] and figures["images_compared"] == 60
    return folder


def test_the_directory_suits_the_compiler_and_the_app(exported: Path) -> None:
    quiet = plan_compile(exported, None, CompileOptions("emulator"))
    compile_model(quiet, lambda text: None)
    classifier = load_classifier(exported)
    assert len(classifier.labels) == 10 and classifier.provenance["method"] == "qat"
    assert classifier.provenance["compile"]["target"] == "emulator"
    files = sorted(path.name for path in exported.iterdir())
    assert files == ["model.onnx", "model.toml", "model.xmodel", "quantised.xmodel"]


def test_checksums_and_fix_points(exported: Path) -> None:
    from tutelage.host.train.config import read_toml

    table = read_toml(exported / "model.toml")
    for name, checksum in table["checksums"].items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == checksum
    graph = Graph.deserialize(exported / "quantised.xmodel")
    (output,) = graph.get_attr("return_ops")
    last = graph.get_op(output).get_input_op("input")
    assert table["provenance"]["output_fix_point"] == last.get_attr("fix_point")
    assert table["provenance"]["input_fix_point"] == 7


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("densenet-tiny", {}),
        ("resnet-8", {}),
        ("mobilenet-small", {}),
    ],
)
def test_onnx_is_the_student_but_for_ties(name: str, options: dict[str, Any]) -> None:
    """QuantizeLinear rounds halves to even: classes nearly always agree, logits within steps."""
    import onnxruntime

    torch.manual_seed(1)
    network = create(name, in_channels=1, **options)
    images = torch.randint(-128, 128, (64, 1, 28, 28)) / 128
    for _ in range(20):
        network(images)  # norms learn statistics, so that the logits differ by image
    student = Student(network, (1, 28, 28), Bits())
    calibrate(student, images)
    student.eval()
    session = onnxruntime.InferenceSession(
        to_onnx(to_quantised(student, "net")), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        wanted = student(images).numpy()
    step = 2.0 ** -list(student.fix_points().activations.values())[-1]
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).mean() < step
    assert np.abs(found[1:] - wanted[:-1]).mean() > 2 * step  # another image's logits are far
    assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.9


def test_code_that_a_checkpoint_names_is_executed_only_with_consent(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tutelage.host.train import checkpoint

    tensors, state = checkpoint.load(run / "student.safetensors")
    options = {"command": f"touch {tmp_path / 'harm'}"}
    state["config"]["student"].update(network="os:system", options=options)
    path = tmp_path / "student.safetensors"
    checkpoint.save(path, tensors, state)
    for command in (["export", "-o", str(tmp_path / "model")], ["sensitivity"], ["bench"]):
        for more in ([], ["--network", "net.py:Net"]):
            assert main([command[0], str(path), *command[1:], *more]) == 2
            error = capsys.readouterr().err
            assert f"{path}: its network 'os:system' is Python code" in error
            assert error.endswith("add --network os:system\n")
    assert sorted(tmp_path.iterdir()) == [path]
    assert main(["export", str(path), "-o", str(tmp_path), "--network", "os:system"]) == 2
    assert (tmp_path / "harm").exists()
    state["config"]["student"]["network"] = "densenet-tinny"  # no preset, and no code either
    checkpoint.save(path, tensors, state)
    assert main(["export", str(path), "-o", str(tmp_path / "model")]) == 2
    assert "no network 'densenet-tinny'; did you mean 'densenet-tiny'?" in capsys.readouterr().err


def test_unexportable_networks_are_reported(
    run: Path, tmp_path: Path, repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    float_run = run.parent / "float.safetensors"
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"no checkpoint")
    narrow = tmp_path / "w4a4"
    train(_config(run.parent, repo_root, quantisation={"activations": 4}), narrow)
    cases = [
        (tmp_path / "nothing", 2, "no such file"),
        (float_run, 2, "method"),
        (garbage, 2, "not readable as safetensors"),
        (narrow, 1, "clip"),
    ]
    for source, status, text in cases:
        assert main(["export", str(source), "-o", str(tmp_path / "out")]) == status
        error = capsys.readouterr().err
        assert text in error and error.count("\n") == 1
    assert not (tmp_path / "out" / "model.toml").exists()
    assert main(["export", str(narrow), "-o", str(tmp_path / "out"), "--clip", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["logits_equal"]
    target = tmp_path / "file"
    target.write_text("in the way")
    assert main(["export", str(run), "-o", str(target)]) == 1
    assert "another --output" in capsys.readouterr().err


def test_a_layer_beyond_the_dpu_is_named(tmp_path: Path, repo_root: Path) -> None:
    """An 18x18 kernel is refused, or exported for the CPU on request."""
    from tutelage.host.train import checkpoint

    data = load("folder", repo_root / "app" / "demo" / "images", "train")
    name = "tests.host.test_export:big_kernel"
    network = create(name, in_channels=data.shape[0])
    checkpoint.save(tmp_path / "float.safetensors", {"student": network.state_dict()}, {})
    student = {"network": name,
               "weights": str(tmp_path / "float.safetensors")}  # fmt: skip
    train(_config(tmp_path, repo_root, method="ptq", student=student), tmp_path / "run")
    pair = data, load("folder", repo_root / "app" / "demo" / "images", "test")
    with pytest.raises(ExportError, match="kernel 18x18; the DPU supports 1 to 16"):
        export(tmp_path / "run", tmp_path / "out", data=pair, network=name)
    assert not (tmp_path / "out").exists()
    figures = export(tmp_path / "run", tmp_path / "out", allow_cpu=True, data=pair, network=name)
    reasons = list(figures["on_cpu"].values())  # its ReLU goes to the CPU with it
    assert reasons == ["kernel 18x18; the DPU supports 1 to 16", "the DPU has no relu"]
    plan = plan_compile(tmp_path / "out", None, CompileOptions("emulator"))
    checks = compile_model(plan, print).figures["checks"]
    assert checks[0].startswith("2 DPU subgraphs; on the CPU: ")


def big_kernel(in_channels: int = 1, num_classes: int = 10) -> torch.nn.Module:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 18), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes),
    )  # fmt: skip


def smooth(in_channels: int = 1, num_classes: int = 10) -> torch.nn.Module:
    """A network with an activation that the DPU lacks, and a sigmoid at its end."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(in_channels, 8, 3, 2), torch.nn.SiLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(8, num_classes), torch.nn.Sigmoid(),
    )  # fmt: skip


def test_replacements_and_the_final_activation_survive(tmp_path: Path, repo_root: Path) -> None:
    """The run's `replace` makes the exported network; its sigmoid is the application's."""
    from tutelage.host.train import checkpoint

    torch.manual_seed(0)
    weights = smooth(3).state_dict()
    checkpoint.save(tmp_path / "float.safetensors", {"student": weights}, {"config": {}})
    student = {
        "network": f"{__name__}:smooth", "weights": str(tmp_path / "float.safetensors"),
        "replace": {"silu": "hardswish"},
    }  # fmt: skip
    config = _config(tmp_path, repo_root, method="ptq", student=student)
    train(config, tmp_path / "run")
    figures = export(tmp_path / "run", tmp_path / "model", network=f"{__name__}:smooth")
    assert figures["logits_equal"] and figures["on_cpu"] == {}
    assert read_description(tmp_path / "model/model.toml").activation == "sigmoid"


@pytest.mark.parametrize(
    ("name", "value"),
    [("log2_t", np.nan), ("log2_t", np.inf), ("weight", np.nan), ("running_var", -1.0)],
)
def test_a_run_that_diverged_is_refused(
    run: Path, tmp_path: Path, name: str, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """NaN logits are reported in one line rather than as an internal error."""
    from tutelage.host.train import checkpoint

    parts, state = checkpoint.load(run / "student.safetensors")
    next(t for key, t in parts["student"].items() if key.endswith(name)).view(-1)[0] = value
    checkpoint.save(tmp_path / "student.safetensors", parts, state)
    assert main(["export", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "not finite" in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_checkpoint_without_a_number_for_its_accuracy(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tutelage.host.train import checkpoint

    parts, state = checkpoint.load(run / "student.safetensors")
    checkpoint.save(tmp_path / "student.safetensors", parts, state | {"accuracy": None})
    assert main(["export", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "accuracy" in capsys.readouterr().err


def test_a_compiled_file_of_the_model_before_goes(run: Path, tmp_path: Path) -> None:
    """The new description would apply to the old network."""
    for name in ("model.xmodel", "notes.txt"):
        (tmp_path / name).write_bytes(b"of the user's")
    export(run, tmp_path, images=10)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["model.onnx", "model.toml", "notes.txt", "quantised.xmodel"]


def _chain(student: Student, test: DataSet, folder: Path) -> None:
    """Student = quantised file = compiled file in every logit, both engines."""
    to_quantised(student, "net").serialize(folder / "quantised.xmodel")
    compile_model(
        plan_compile(folder / "quantised.xmodel", folder / "out", CompileOptions("emulator")),
        print,
    )
    models = [
        load_engine(path, engine)
        for path in (folder / "quantised.xmodel", folder / "out" / "model.xmodel")
        for engine in ("fast", "reference")
    ]
    for start in range(0, len(test), 500):
        images = test.part(start, start + 500).inputs()
        with torch.no_grad():
            wanted = student(images).numpy()
        for model in models:
            found = model.run(images.permute(0, 2, 3, 1).numpy())
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.docs
def test_the_chain_on_the_whole_test_set(repo_root: Path, tmp_path: Path) -> None:
    """The shipped W8A8 student on the 10,000 test images: no logit differs anywhere."""
    if not DEFAULT_IDX.is_dir():
        pytest.skip(f"{DEFAULT_IDX} is absent: apt install dataset-fashion-mnist")
    folder = repo_root / "models" / "fashion-densenet"
    test = load("idx", None, "test")
    config, state = read_state(folder / "student.safetensors")
    loaded = load_student(folder / "student.safetensors", config, state, test)
    _chain(loaded.student, test, tmp_path)
