"""Scripts for AMD's quantiser: calibration and test runs, fine-tuning, training, inspection."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

import torch
from torch import Tensor, nn

from tutelage.core.commands import installation
from tutelage.dpu.engine.reference import load_engine
from tutelage.dpu.runtime import shim
from tutelage.host.compile.compilation import CompileOptions, compile_model, plan_compile
from tutelage.host.quantise.walker import UnsupportedOp
from tutelage.host.vai_q_pytorch import fast_finetune as tuning
from tutelage.host.vai_q_pytorch.arguments import QuantizerError
from tutelage.host.vai_q_pytorch.calibration_images import KeptImages
from tutelage.host.vai_q_pytorch.inspector import Inspector
from tutelage.host.vai_q_pytorch.qat import QatProcessor
from tutelage.host.vai_q_pytorch.quantizer import TorchQuantizer, dump_xmodel

SHAPE = (3, 12, 16)

SCRIPT = """
import argparse, sys
import numpy as np
import torch
import torch.nn as nn
from pytorch_nndct.apis import torch_quantizer, dump_xmodel
from common import CNN

parser = argparse.ArgumentParser()
parser.add_argument("-q", "--quant_mode", default="calib", choices=["float", "calib", "test"])
parser.add_argument("--deploy", action="store_true")
args = parser.parse_args()
device = torch.device("cuda:0" if torch.cuda.device_count() else "cpu")
model = CNN().to(device)
model.load_state_dict(torch.load("f_model.pth"))
quantizer = torch_quantizer(args.quant_mode, model, (torch.randn([4, 3, 12, 16])),
                            output_dir="build/quant_model", device=device)
network = quantizer.quant_model

network.eval()
images = torch.from_numpy(np.load("images.npy"))
with torch.no_grad():
    outputs = torch.cat([network(batch.to(device)) for batch in images.split(7)])
if args.quant_mode == "calib":
    quantizer.export_quant_config()
else:
    np.save("outputs.npy", outputs.cpu().numpy())
if args.deploy:
    quantizer.export_torch_script("build/quant_model")
    quantizer.export_onnx_model("build/quant_model")
    quantizer.export_xmodel(deploy_check=True, output_dir="build/quant_model")
"""

COMMON = """
import torch.nn as nn

class CNN(nn.Module):
    def __init__(self):
        super(CNN, self).__init__()
        self.network = nn.Sequential(
            nn.Conv2d(3, 8, kernel_size=5, stride=2, padding=1), nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 10, kernel_size=3, stride=2), nn.BatchNorm2d(10),
            nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x):
        return self.network(x)
"""


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


@pytest.fixture
def pytorch_nndct(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in package, as a script imports it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    shim.install()
    yield import_module("pytorch_nndct")
    for name in [name for name in sys.modules if name.split(".")[0] == "pytorch_nndct"]:
        del sys.modules[name]


class Network(nn.Module):
    """A small network with a shortcut, whose output has axes of size 1."""

    def __init__(self, outputs: int = 4) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Conv2d(8, 8, 3, 1, 1)
        self.last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        result: Tensor = self.last(torch.relu(y + self.second(y)))
        return result


def images(count: int = 20) -> Tensor:
    """The same images each time."""
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def quantizer(mode: str, network: nn.Module, **options: Any) -> TorchQuantizer:
    """A quantiser that writes to the directory of the test."""
    return TorchQuantizer(mode, network, (images(2),), output_dir="out", device="cpu", **options)


def calibrated(network: nn.Module) -> TorchQuantizer:
    """The quantiser of a calibration run, after it."""
    found = quantizer("calib", network)
    found.quant_model(images())
    found.export_quant_config()
    return found


# -- the steps of a tutorial ---------------------------------------------------------------------


def test_a_tutorial_s_script_ends_in_a_file_for_the_board(tmp_path: Path, repo_root: Path) -> None:
    (tmp_path / "common.py").write_text(COMMON)
    (tmp_path / "quantize.py").write_text(SCRIPT)
    scope: dict[str, Any] = {}
    exec(COMMON, scope)
    torch.save(scope["CNN"]().state_dict(), "f_model.pth")
    np.save("images.npy", images().numpy())

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "tutelage", "shim", "quantize.py", *arguments]
        environment = {"PYTHONPATH": str(repo_root), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run(command, text=True, capture_output=True, env=environment, check=True)
        return done.stderr

    run("-q", "calib")
    folder = tmp_path / "build" / "quant_model"
    files = {"quant_info.json", "quant_parameters.safetensors"}
    assert {path.name for path in folder.iterdir()} == files
    said = run("-q", "test", "--deploy")
    assert "no .pt is written" in said and "deploy_check: no data is written" in said
    assert "next: tutelage compile build/quant_model/CNN_int.xmodel" in said
    assert {path.name for path in folder.iterdir()} == {
        "CNN_int.onnx", "CNN_int.xmodel", *files,
    }  # fmt: skip
    wanted, rows = np.load("outputs.npy"), images().permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(load_engine(folder / "CNN_int.xmodel").run(rows), wanted)
    plan = plan_compile(folder / "CNN_int.xmodel", tmp_path / "board", CompileOptions("zcu104"))
    compile_model(plan, say=lambda text: None)
    compiled = load_engine(tmp_path / "board" / "model.xmodel", "instructions")
    np.testing.assert_array_equal(compiled.run(rows[:2]), wanted[:2])


def test_calibration_and_test(capsys: pytest.CaptureFixture[str]) -> None:
    network = Network().train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    found = quantizer("calib", network)
    model = found.quant_model
    assert not model.train().training  # always the deployed form
    floating = network.eval()(images()).detach()
    network.train()
    for batch in images().split(7):
        assert model(batch).shape == (len(batch), 4, 1, 1)
    # It computes in float until it is calibrated (except for the DPU's factors of average pools).
    torch.testing.assert_close(model(images()), floating, atol=3e-3, rtol=0)
    found.export_quant_config()
    quantised = model(images())
    assert not torch.equal(quantised, floating)
    assert (quantised - floating).abs().max() < 0.1 * floating.abs().max()
    assert network.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())

    test = quantizer("test", network)
    assert torch.equal(test.quant_model(images()), quantised)
    assert torch.equal(test.quant_model(images()[:1].double()), quantised[:1])
    test.export_xmodel("out")
    dump_xmodel("dumped")
    rows = images().permute(0, 2, 3, 1).numpy()
    for folder in ("out", "dumped"):
        file = load_engine(Path(folder, "Network_int.xmodel")).run(rows)
        np.testing.assert_array_equal(file, quantised.permute(0, 2, 3, 1).numpy())
    assert "Network_int.xmodel" in capsys.readouterr().err


def test_quant_info(tmp_path: Path) -> None:
    network = Network()
    found = calibrated(network)
    path = tmp_path / "out" / "quant_info.json"
    info = json.loads(path.read_text())
    assert set(info) == {
        "param", "input", "output", "fast_finetuned", "network", "version", "parameters",
    }  # fmt: skip
    assert set(info["param"]) == {"first/0.weight", "second.weight", "last/1.weight"}
    assert info["network"] == "Network" and info["fast_finetuned"] is False
    points = found._student.fix_points()
    assert info["input"] == {"input": [[8, points.activations["input"]]]}
    assert {name: entry[0][1] for name, entry in info["output"].items()} == {
        name: point for name, point in points.activations.items() if name != "input"
    }
    # A fix point that is changed by hand counts.
    info["param"]["second.weight"] = [[8, points.weights["second"] - 3]]
    path.write_text(json.dumps(info))
    changed = quantizer("test", network)
    assert changed._student.fix_points().weights["second"] == points.weights["second"] - 3
    assert not torch.equal(changed.quant_model(images()), found.quant_model(images()))


def test_the_whole_way_by_functions(capsys: pytest.CaptureFixture[str]) -> None:
    found = quantizer("calib", Network())

    def run(model: nn.Module, batches: list[Tensor]) -> int:
        return sum(len(model(batch)) for batch in batches)

    arguments = (found.quant_model, [*images().split(6)])
    found.quantize(run, arguments)
    found.test(run, arguments)
    for fmt in ("xmodel", "onnx", "torch_script"):
        found.deploy(run, arguments, fmt)
    assert "the quantised network: 20" in capsys.readouterr().err
    assert {path.name for path in Path("out").iterdir()} == {
        "Network_int.onnx", "Network_int.xmodel", "quant_info.json", "quant_parameters.safetensors",
    }  # fmt: skip
    with pytest.raises(QuantizerError, match="fmt 'tflite': use one of xmodel, onnx"):
        found.deploy(run, arguments, "tflite")


def test_a_state_dict_file(tmp_path: Path) -> None:
    network, other = Network(), Network()
    torch.save(other.state_dict(), "weights.pth")
    found = quantizer("calib", network, state_dict_file="weights.pth")
    wanted = other.eval()(images())
    torch.testing.assert_close(found.quant_model(images()), wanted, atol=3e-3, rtol=0)
    torch.save(Network(5).state_dict(), "other.pth")
    for file, message in {
        "none.pth": "no such file",
        "other.pth": "not the weights of this network",
    }.items():
        with pytest.raises(QuantizerError, match=message):
            quantizer("calib", network, state_dict_file=file)


def test_networks_in_other_clothes() -> None:
    network = Network().eval()
    calibrated(nn.DataParallel(network))
    sequential = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 10 * 14, 2))
    calibrated(sequential).export_xmodel("out")
    assert Path("out/Sequential_int.xmodel").is_file()
    script = torch.jit.trace(network, images(1))
    for wrong in (script, [network], "network"):
        with pytest.raises(QuantizerError, match=r"pass the nn\.Module"):
            quantizer("calib", wrong)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedOp, match="Softsign at 1"):
        quantizer("calib", nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softsign()))


class Pair(nn.Module):
    """A network of two inputs that returns two values."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, rgb: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.left(rgb) + self.right(depth))
        return self.out(y), y


def test_several_inputs_and_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "LEAST_STEPS", 3)
    network, inputs = Pair(), (images(6), images(6)[:, :1] * 3)
    found = TorchQuantizer("calib", network, inputs, output_dir="out", device="cpu")
    found.fast_finetune(lambda model: model(*inputs), (found.quant_model,))
    found.quant_model(*inputs)
    found.export_quant_config()
    test = TorchQuantizer("test", network, inputs, output_dir="out", device="cpu")
    outputs = test.quant_model(*inputs)
    assert isinstance(outputs, tuple) and [x.shape[1] for x in outputs] == [2, 4]
    test.export_xmodel("out")
    rows = (x.permute(0, 2, 3, 1).numpy() for x in inputs)
    file = load_engine(Path("out/Pair_int.xmodel")).run_all(*rows)
    for wanted, values in zip(outputs, file.values(), strict=True):
        np.testing.assert_array_equal(values, wanted.permute(0, 2, 3, 1).numpy())
    trained = QatProcessor(network, inputs)
    model = trained.trainable_model()
    torch.stack([x.square().mean() for x in model(*inputs)]).sum().backward()
    assert all(p.grad is not None for p in model.quantizer_parameters())
    deployed = trained.to_deployable(model, "qat")(*inputs)
    for ours, values in zip(model.eval()(*inputs), deployed, strict=True):
        assert torch.equal(ours, values)
    Inspector("zcu104").inspect(network, inputs, "cpu", "found")


# -- the calibration sample ----------------------------------------------------------------------


def test_the_sample_is_of_all_images_and_bounded() -> None:
    kept = KeptImages(most=50)
    for batch in torch.arange(1000.0).reshape(1000, 1, 1, 1).split(64):
        kept.add((batch,))
    (sample,) = kept.tensors()
    values = sample.flatten()
    assert len(values) == len(kept) == 50 and len(values.unique()) == 50
    assert 350 < float(values.mean()) < 650 and (values > 900).any() and (values < 100).any()
    few = KeptImages(most=50)
    few.add((torch.arange(20.0).reshape(20, 1, 1, 1),))
    assert few.tensors()[0].flatten().tolist() == list(range(20))
    small = KeptImages(most_bytes=3 * 4 * 10)
    small.add((torch.zeros(7, 1, 2, 5), torch.zeros(7, 0)))
    assert len(small) == 3 and [len(x) for x in small.tensors()] == [3, 3]


# -- fine-tuning --------------------------------------------------------------------------------


def _pass(model: nn.Module, batches: list[Tensor]) -> None:
    for batch in batches:
        model(batch)


def test_fast_finetune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tuning, "LEAST_STEPS", 40)
    monkeypatch.setattr(tuning, "LR", 1e-3)
    network = Network().eval()
    found = quantizer("calib", network)
    with pytest.raises(QuantizerError, match="no image has passed"):
        found.fast_finetune(_pass, (found.quant_model, []))
    found.fast_finetune(_pass, (found.quant_model, [images(32)]))
    said = capsys.readouterr().err
    after, before = _errors(said)
    assert after <= before
    found.quant_model(images())
    found.export_quant_config()
    test = quantizer("test", network)
    test.load_ft_param()
    assert torch.equal(test.quant_model(images()), found.quant_model(images()))
    weight = test._student.layer("second").folded()[0]  # type: ignore[operator]
    assert not torch.equal(weight, network.second.weight)

    parameters = Path("out/quant_parameters.safetensors")
    for damage in (lambda: parameters.write_bytes(b"{}"), parameters.unlink):
        damage()
        with pytest.raises(QuantizerError, match="missing, or not from the same calibration"):
            quantizer("test", network)
    with pytest.raises(QuantizerError, match="needs quant_mode 'calib'"):
        test.fast_finetune(_pass, (test.quant_model, [images()]))
    calibrated(network)  # without fine-tuning
    with pytest.raises(QuantizerError, match="the weights were not fine-tuned"):
        quantizer("test", network).load_ft_param()


def _errors(said: str) -> tuple[float, float]:
    words = said.split()
    return float(words[words.index("is") + 1]), float(words[words.index("before") - 1])


def test_fine_tuning_that_helps_nothing_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "LR", 10.0)
    monkeypatch.setattr(tuning, "LEAST_STEPS", 3)
    found = calibrated(Network().eval())
    state = {name: value.clone() for name, value in found._student.state_dict().items()}
    before, after = tuning.fast_finetune(found._student, found._network.eval(), (images(),))
    assert before == after and not found._student.training
    for name, value in found._student.state_dict().items():
        assert torch.equal(value, state[name]), name


# -- training -----------------------------------------------------------------------------------


def test_training() -> None:
    network = Network()
    processor = QatProcessor(network, images(2), bitwidth=8)
    model = processor.trainable_model()
    assert processor.quant_model() is model
    with pytest.raises(QuantizerError, match="has seen no image"):
        processor.to_deployable(model, "qat")
    groups = [
        {"params": model.quantizer_parameters(), "lr": 1e-2, "name": "quantizer"},
        {"params": model.non_quantizer_parameters(), "lr": 1e-3, "name": "weight"},
    ]
    optimiser = torch.optim.Adam(groups, 1e-5, weight_decay=1e-4)
    wanted = network.eval()(images()).detach() * 1.1
    losses = []
    for _ in range(12):
        model.train()
        loss = (model(images()) - wanted).square().mean()
        penalty = sum((torch.pow(p, 2.0)[0] for p in model.quantizer_parameters()), torch.zeros(()))
        optimiser.zero_grad()
        (loss + 1e-4 * torch.sqrt(penalty)).backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(torch.isfinite(p).all() for p in model.parameters())
    torch.save({"state_dict": model.state_dict()}, "model.pth")
    model.eval()
    outputs = model(images()).detach()
    assert outputs.shape == (20, 4, 1, 1)

    again = QatProcessor(network, images(2))
    other = again.trainable_model()
    other.load_state_dict(torch.load("model.pth", weights_only=True)["state_dict"])
    assert torch.equal(other.eval()(images()), outputs)
    assert torch.equal(again.to_deployable(other, "qat")(images()), outputs)
    third = QatProcessor(network, images(2))
    with pytest.raises(QuantizerError, match="call deployable_model"):
        third.export_xmodel("qat")
    assert torch.equal(third.deployable_model("qat", used_for_xmodel=True)(images()), outputs)
    third.export_xmodel("qat")
    third.export_onnx_model("qat")
    third.export_torch_script("qat")
    rows = images().permute(0, 2, 3, 1).numpy()
    file = load_engine(Path("qat/Network_int.xmodel")).run(rows)
    np.testing.assert_array_equal(file, outputs.permute(0, 2, 3, 1).numpy())
    # Another training starts from its thresholds.
    fourth = QatProcessor(network, images(2)).trainable_model(calib_dir="qat")
    points = fourth.deployed().fix_points()
    assert points == model.deployed().fix_points()


def test_switches_of_training() -> None:
    network = Network()
    model = QatProcessor(network, images(2)).trainable_model()
    model(images())
    model.eval()
    rounded = model(images())
    model.disable_quant()
    wanted = network.eval()(images())
    torch.testing.assert_close(model(images()), wanted, atol=3e-3, rtol=0)
    model.enable_quant()
    assert torch.equal(model(images()), rounded)
    model.freeze_quant()
    assert not any(p.requires_grad for p in model.quantizer_parameters())
    model.enable_warmup()
    model(images() * 4)
    model.disable_warmup()
    assert not torch.equal(model(images()), rounded)
    model.fuse_conv_bn()
    assert model.student.norm_frozen
    with pytest.raises(QuantizerError, match="that trainable_model"):
        QatProcessor(network, images(2)).to_deployable(network, "qat")


def test_a_quantiser_for_training() -> None:
    found = TorchQuantizer("calib", Network(), images(2), qat_proc=True)
    assert found.deploy_model is None
    assert type(found.quant_model).__name__ == "TrainableModel"
    assert quantizer("calib", Network()).deploy_model is None


# -- inspection ---------------------------------------------------------------------------------


def test_inspection(capsys: pytest.CaptureFixture[str]) -> None:
    network = Network()
    for target in ("DPUCZDX8G_ISA1_B4096", "0x101000016010407", "zcu104"):
        Inspector(target).inspect(network, images(2), torch.device("cpu"), "found")
        assert "All layers run on the DPU." in capsys.readouterr().out
        report = Path(f"found/inspect_{target}.txt").read_text()
        assert f"target: {target}\nnetwork: Network\n" in report
        assert "DPU  conv2d" in report and "1x6x8x8" in report
    Inspector("zcu104").inspect(network, (images(2),), "cpu", "found", 2, "png")
    out, err = capsys.readouterr()
    assert "DPU  add" in out and ".svg: the network, as SVG" in err
    assert Path("found/inspect_zcu104.svg").read_text().startswith("<?xml")
    Inspector("zcu104").inspect(network, images(2), "cpu", "found", 0)
    assert capsys.readouterr().out == ""


def test_inspection_of_a_model_not_for_the_dpu(capsys: pytest.CaptureFixture[str]) -> None:
    wide = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 17))
    Inspector("zcu104").inspect(wide, torch.zeros(1, 3, 40, 40), "cpu", "found")
    assert "Sequential__1: kernel 17x17; the DPU supports 1 to 16" in capsys.readouterr().out
    Inspector("zcu104").inspect(wide[1:], torch.zeros(1, 8, 40, 40), "cpu", "found")
    out = capsys.readouterr().out  # no part of it is for the DPU
    assert out.startswith("On the CPU:\n") and "kernel 17x17" in out
    refused = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softsign())
    Inspector("zcu104").inspect(refused, images(1), "cpu", "found")
    assert "cannot be quantised: the DPU does not support Softsign" in capsys.readouterr().err
    assert "refused: the DPU does not support" in Path("found/inspect_zcu104.txt").read_text()
    with pytest.raises(QuantizerError, match="image_format 'gif': use 'svg' or 'png'"):
        Inspector("zcu104").inspect(wide, images(1), "cpu", "found", image_format="gif")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("DPUCAHX8L_ISA0_SP", "is not emulated; give a DPUCZDX8G such as"),
        ("0x603000b16026010", "DPUCVDX8G is not emulated"),
        ("0xno", "not a hexadecimal"),
        ("DPUCZDX8G_ISA1_B512", "the fingerprint of DPUCZDX8G_ISA1_B512 is not known"),
    ],
)
def test_targets_that_are_not_emulated(target: str, message: str) -> None:
    with pytest.raises(QuantizerError, match=message):
        Inspector(target)


# -- what is not emulated, and wrong use --------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bitwidth": 4}, "bitwidth=4: the DPU computes with 8 bits"),
        ({"mix_bit": True}, "mix_bit=True is not emulated"),
        ({"lstm": True}, "lstm=True is not emulated"),
        ({"app_deploy": "NLP"}, "app_deploy='NLP' is not emulated"),
        ({"custom_quant_ops": ["x"]}, "custom_quant_ops="),
        ({"quant_config_file": "none.json"}, "none.json: No such file"),
    ],
)
def test_arguments_that_are_not_emulated(options: dict[str, Any], message: str) -> None:
    with pytest.raises(QuantizerError, match=message):
        quantizer("calib", Network(), **options)


def test_wrong_use() -> None:
    network = Network()
    with pytest.raises(QuantizerError, match="quant_mode 'float': use 'calib' or 'test'"):
        quantizer("float", network)
    inputs: list[Any] = [None, torch.zeros(1, 3), [], {"x": images(1)}, images(0)]
    for wrong in inputs:
        with pytest.raises(QuantizerError, match=r"the DPU takes tensors \(N, C, H, W\)"):
            TorchQuantizer("calib", network, wrong)
    with pytest.raises(QuantizerError, match="run the script with quant_mode 'calib' first"):
        quantizer("test", network)
    found = quantizer("calib", network)
    with pytest.raises(QuantizerError, match="no image has passed"):
        found.export_quant_config()
    with pytest.raises(QuantizerError, match="the network is not calibrated yet"):
        found.export_xmodel("out")


def test_quant_info_that_does_not_fit(tmp_path: Path) -> None:
    network = Network()
    calibrated(network)
    path = tmp_path / "out" / "quant_info.json"
    good = json.loads(path.read_text())
    cases = [
        ("[]", "not a JSON object"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "no input 'input': the file is of another network"),
        (json.dumps({**good, "param": []}), "no param 'first/0.weight'"),
        (json.dumps({**good, "input": {"input": [[8, 3000]]}}), r"not \[\[8, fix point\]\]"),
        (json.dumps({**good, "input": {"input": [[4, 3]]}}), r"not \[\[8, fix point\]\]"),
        (json.dumps({**good, "input": {"input": 3}}), r"is 3, not \[\[8, fix point\]\]"),
        (json.dumps({**good, "parameters": "0" * 64}), "missing, or not from the same calibration"),
    ]
    for text, message in cases:
        path.write_text(text)
        with pytest.raises(QuantizerError, match=message):
            quantizer("test", network)


def test_a_file_of_settings(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    fixed = {"datatype": "int", "bit_width": 8, "scale_type": "poweroftwo", "per_channel": False}
    outliers = images()
    outliers[0, 0, 0, 0] = 12.0
    points = []
    for method in ("diffs", "maxmin"):
        path.write_text(json.dumps({"overall_quantize_config": {**fixed, "method": method}}))
        found = quantizer("calib", Network(), quant_config_file=str(path))
        found.quant_model(outliers)
        found.export_quant_config()
        points.append(found._student.fix_points().activations)
    assert points[0] != points[1]
    for settings, message in (
        ({"overall_quantize_config": {"bit_width": 4}}, "bit_width is 4, but the DPU supports 8"),
        ({"overall_quantize_config": {"scale_type": "float"}}, "scale_type is 'float'"),
        ({"overall_quantize_config": {"method": "entropy"}}, "use diffs or maxmin"),
        ({"overall_quantize_config": 3}, "must be a JSON object"),
        ({"layer_quantize_config": [{}]}, "settings of single layers"),
    ):
        path.write_text(json.dumps(settings))
        with pytest.raises(QuantizerError, match=message):
            quantizer("calib", Network(), quant_config_file=str(path))


# -- the names that scripts import --------------------------------------------------------------


def test_the_names(pytorch_nndct: Any) -> None:
    apis = import_module("pytorch_nndct.apis")
    for name in ("Inspector", "QatProcessor", "dump_xmodel", "torch_quantizer"):
        assert getattr(apis, name) is getattr(pytorch_nndct, name)
    assert apis.torch_quantizer is TorchQuantizer
    for module, name in (
        (pytorch_nndct, "OFAPruner"), (apis, "load_vai_ops"), (pytorch_nndct.nn, "Conv2d"),
        (pytorch_nndct.nn.modules, "reluk"), (pytorch_nndct.nn.modules.functional, "Softmax"),
        (pytorch_nndct.utils, "Const"),
    ):  # fmt: skip
        with pytest.raises(NotImplementedError, match=f"{name} is not emulated"):
            getattr(module, name)
    with pytest.raises(NotImplementedError, match="register_custom_op is not emulated"):
        pytorch_nndct.utils.register_custom_op("MyOp")


def test_modules_for_functions(pytorch_nndct: Any) -> None:
    functional = pytorch_nndct.nn.modules.functional
    x, y = images(2), images(4)[2:]
    cases = [
        (functional.Add(), (x, y), x + y),
        (functional.AddScalar(), (x, 2.0), x + 2),
        (functional.Cat(), ([x, y], 1), torch.cat([x, y], 1)),
        (functional.Clamp(), (x, 0, 1), x.clamp(0, 1)),
        (functional.Interpolate(), (x, None, 2), nn.functional.interpolate(x, scale_factor=2)),
        (functional.Upsample(), (x, None, 2), nn.functional.interpolate(x, scale_factor=2)),
        (functional.Matmul(), (x, y.mT), x @ y.mT),
        (functional.Max(), (x, 1), x.max(1)[0]),
        (functional.Mean(), (x, (2, 3), True), x.mean((2, 3), keepdim=True)),
        (functional.Mul(), (x, y), x * y),
        (functional.Pad(), (x, (1, 1)), nn.functional.pad(x, (1, 1))),
        (functional.Sum(), (x, 1, True), x.sum(1, True)),
    ]
    for module, arguments, wanted in cases:
        found = module(*arguments)
        assert torch.equal(found[0] if isinstance(module, functional.Max) else found, wanted)

    class Marked(nn.Module):
        """A network as in training scripts."""

        def __init__(self) -> None:
            super().__init__()
            self.begin, self.end = pytorch_nndct.nn.QuantStub(), pytorch_nndct.nn.DeQuantStub()
            self.conv, self.relu = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True)
            self.add, self.cat = functional.Add(), functional.Cat()
            self.out = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))

        def forward(self, x: Tensor) -> Tensor:
            x = self.begin(x)
            y = self.add(self.relu(self.conv(x)), x)
            result: Tensor = self.end(self.out(self.cat([x, y], dim=1)))
            return result

    calibrated(Marked()).export_xmodel("out")
    assert Path("out/Marked_int.xmodel").is_file()


def test_without_pytorch_the_package_is_named(repo_root: Path) -> None:
    code = (
        "import sys; from tutelage.dpu.runtime import shim; shim.install()\n"
        "sys.modules['torch'] = None\n"
        "try: import pytorch_nndct\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repo_root, text=True, check=True,
                          capture_output=True)  # fmt: skip
    assert done.stdout == f"emulating pytorch_nndct needs PyTorch: {installation('host')}\n"


def test_a_file_of_the_script_s_own_comes_first(tmp_path: Path, repo_root: Path) -> None:
    shutil.copytree(repo_root / "host/stand_ins/pytorch_nndct/nn", tmp_path / "pytorch_nndct")
    (tmp_path / "script.py").write_text("import pytorch_nndct; print(pytorch_nndct.__file__)")
    done = subprocess.run(
        [sys.executable, "-m", "tutelage", "shim", str(tmp_path / "script.py")],
        cwd=repo_root, text=True, check=True, capture_output=True,
    )  # fmt: skip
    assert done.stdout.startswith(str(tmp_path))
