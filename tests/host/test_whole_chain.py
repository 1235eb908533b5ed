"""The whole chain on random DenseNets: a training step, export, compilation, and every way to run.

From the student in evaluation mode on, every logit must be the same, bit for bit. By default a few
examples are run; `TUTELAGE_EXAMPLES=200` runs 200.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")

from torch import Tensor, nn  # noqa: E402

from tutelage.__main__ import main  # noqa: E402
from tutelage.app.classify import main as classify  # noqa: E402
from tutelage.dpu.engine.reference import load_engine  # noqa: E402
from tutelage.dpu.engine.runtimes import RUNTIME_VARIABLE  # noqa: E402
from tutelage.dpu.runtime import vart, xir  # noqa: E402
from tutelage.host.compile.compilation import CompileOptions, compile_model, plan_compile  # noqa: E402
from tutelage.host.export.model_directory import ExportError, export, load_student, read_state  # noqa: E402
from tutelage.host.networks import create  # noqa: E402
from tutelage.host.train import checkpoint  # noqa: E402
from tutelage.host.train.config import Config, make_config  # noqa: E402
from tutelage.host.train.data import DataSet  # noqa: E402
from tutelage.host.train.loop import train  # noqa: E402

EXAMPLES = int(os.environ.get("TUTELAGE_EXAMPLES", "5"))
IMAGES = 12
MOST_REFUSED = 0.2
"""Share of random networks that the DPU may refuse; each refusal must name its reason."""


@dataclass(frozen=True)
class Case:
    """A network, the seed of its weights, its data and its training."""

    options: dict[str, Any]
    shape: tuple[int, int, int]
    classes: int
    bits: tuple[int, int]
    method: str
    calibration: str
    spread: float  # weights of a layer are scaled by 2 ** uniform(-spread, spread)
    dead: float  # share of channels whose weights are 0
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    blocks = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    stem = draw(st.sampled_from(["small", "stride2", "stride4", "imagenet"]))
    least = {"small": 3, "stride2": 5, "stride4": 8, "imagenet": 8}[stem] * 2 ** (len(blocks) - 1)
    growth = draw(st.integers(1, 9))
    compressions = [0.5, 0.75, 1.0] if growth == 1 else [0.4, 0.5, 0.75, 1.0]  # a channel is kept
    options = {
        "growth_rate": growth,
        "block_config": blocks,
        "compression": draw(st.sampled_from(compressions)),
        "bottleneck": draw(st.integers(1, 4)),
        "stem": stem,
        "init_features": draw(st.sampled_from([0, 1, 3, 16, 17])),
    }
    sides = st.integers(least, max(least, 24) + 8)
    return Case(
        options,
        (draw(st.sampled_from([1, 3])), draw(sides), draw(sides)),
        draw(st.integers(2, 12)),
        draw(st.sampled_from([(8, 8), (4, 8), (4, 4), (3, 3), (8, 5)])),
        draw(st.sampled_from(["ptq", "qat", "qkd"])),
        draw(st.sampled_from(["mse", "minmax"])),
        draw(st.sampled_from([0.0, 1.0, 4.0])),
        draw(st.sampled_from([0.0, 0.3])),
        draw(st.integers(0, 2**20)),
    )


@pytest.mark.slow
def test_every_logit_is_the_same_from_the_student_to_the_application(
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES < 10,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(case=cases())
    def check(case: Case) -> None:
        outcomes[_outcome(case)] += 1
        capsys.readouterr()

    check()
    refused = sum(outcomes.values()) - outcomes["equal"]
    assert refused <= MOST_REFUSED * sum(outcomes.values()), outcomes


def _outcome(case: Case) -> str:
    """Return "equal" if all forms gave the same logits, or else the reason of a refusal."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = _data(case)
        config = _config(case, folder, data)
        train(config, folder / "run", data=(data, data))
        try:
            figures = export(folder / "run", folder / "model", images=0, clip=True,
                             data=(data, data))  # fmt: skip
        except ExportError as error:
            return str(error).split(":")[0]
        assert figures["logits_equal"] and figures["images_compared"] == IMAGES
        plan = plan_compile(folder / "model", None, CompileOptions("emulator"))
        compile_model(plan, lambda text: None)
        images = data.inputs()
        logits = _logits(folder / "run", images, data)
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        for found in _by_every_engine(folder / "model", pixels):
            np.testing.assert_array_equal(found, logits)
        np.testing.assert_array_equal(_by_vart(folder / "model/model.xmodel", pixels), logits)
        np.testing.assert_array_equal(_by_program(folder, pixels), logits)
        _check_the_application(folder, data, logits)
    return "equal"


def _data(case: Case) -> DataSet:
    """Noise, plain areas and the extreme values; each class has an image."""
    rng = np.random.default_rng(case.seed)
    images = rng.integers(0, 256, (IMAGES, *case.shape), np.uint8)
    images[1], images[2], images[3, :, ::2] = 0, 255, 128
    images[4:] = images[4:] // 3 + rng.integers(0, 171, (IMAGES - 4, 1, 1, 1), np.uint8)
    labels = torch.arange(IMAGES) % case.classes
    names = tuple(f"class {k}" for k in range(case.classes))
    return DataSet(torch.from_numpy(images), labels, names)


def _config(case: Case, folder: Path, data: DataSet) -> Config:
    table: dict[str, Any] = {
        "method": case.method,
        "seed": case.seed,
        "data": {"kind": "folder", "path": "none"},
        "student": _network(case, folder / "student.safetensors", case.seed),
        "quantisation": {"weights": case.bits[0], "activations": case.bits[1],
                         "calibration": case.calibration},
        # One step in each phase: the batch is the data.
        "training": {"epochs": 3 if case.method == "qkd" else 1, "batch_size": IMAGES, "lr": 1e-3},
    }  # fmt: skip
    if case.method == "qkd":
        table["teacher"] = _network(case, folder / "teacher.safetensors", case.seed + 1)
    return make_config(table)


def _network(case: Case, path: Path, seed: int) -> dict[str, Any]:
    """Save random weights; return the network's table of a run's file."""
    torch.manual_seed(seed)
    network = create("densenet", in_channels=case.shape[0], num_classes=case.classes,
                     **case.options)  # fmt: skip
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                exponent = case.spread * (2 * torch.rand(()) - 1)
                alive = torch.rand(module.weight.shape[0], 1, 1, 1) >= case.dead
                module.weight.mul_(2.0**exponent * alive)
            elif isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.05, 4)
                module.weight.uniform_(-1.5, 1.5)
                module.bias.normal_(0, 0.3)
    checkpoint.save(path, {"student": network.state_dict()}, {"config": {}})
    return {"network": "densenet", "weights": str(path), "options": case.options}


def _logits(run: Path, images: Tensor, data: DataSet) -> np.ndarray:
    path = run / "student.safetensors"
    config, state = read_state(path)
    student = load_student(path, config, state, data).student
    with torch.no_grad():
        found: np.ndarray = student(images).numpy()
    return found


def _by_every_engine(model: Path, pixels: np.ndarray) -> Iterator[np.ndarray]:
    for path in (model / "quantised.xmodel", model / "model.xmodel"):
        yield load_engine(path, "reference").run(pixels)
        for runtime in ("openvino", "onnxruntime"):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(RUNTIME_VARIABLE, runtime)
                yield load_engine(path, "fast").run(pixels)


def _by_vart(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Like a board script: all images in flight, awaited in reverse order."""
    children = xir.Graph.deserialize(path).get_root_subgraph().toposort_child_subgraph()
    (part,) = [child for child in children if child.get_attr("device") == "DPU"]
    runner = vart.Runner.create_runner(part, "run")
    (source,), (result,) = runner.get_input_tensors(), runner.get_output_tensors()
    inputs = (pixels * 2.0 ** source.get_attr("fix_point")).astype(np.int8)
    outputs = np.zeros((len(pixels), *result.dims[1:]), np.int8)
    jobs = [runner.execute_async([inputs[i : i + 1]], [outputs[i : i + 1]])
            for i in range(len(pixels))]  # fmt: skip
    for job in reversed(jobs):
        runner.wait(job)
    real: np.ndarray = outputs.reshape(len(pixels), -1) * 2.0 ** -result.get_attr("fix_point")
    return real


def _by_program(folder: Path, pixels: np.ndarray) -> np.ndarray:
    """Return the outputs of `tutelage run`; the other commands must accept the files too."""
    model, quantised = (str(folder / f"model/{name}.xmodel") for name in ("model", "quantised"))
    np.save(folder / "in.npy", pixels)
    files = ["--input", str(folder / "in.npy"), "--output", str(folder / "out.npy")]
    assert main(["run", model, *files]) == 0
    assert main(["diff", quantised, model]) == 0
    assert main(["inspect", model]) == main(["predict", model]) == 0
    found: np.ndarray = np.load(folder / "out.npy")
    return found


def _check_the_application(folder: Path, data: DataSet, logits: np.ndarray) -> None:
    """The whole program on the images as PNG files: the class, and the softmax of the logits."""
    (folder / "images").mkdir()
    for index, image in enumerate(data.images.permute(0, 2, 3, 1).numpy()):
        cv2.imwrite(str(folder / f"images/{index:02d}.png"), image[:, :, ::-1])
    rows = folder / "rows.jsonl"
    source = ["--source", str(folder / "images"), "--model", str(folder / "model")]
    assert classify([*source, "--output", str(rows), "--quiet"]) == 0
    for line, own in zip(rows.read_text().splitlines(), logits, strict=True):
        row, powers = json.loads(line), np.exp(own.astype(np.float64) - own.max())
        assert row["label"] == data.classes[int(own.argmax())]
        assert row["confidence"] == pytest.approx(powers.max() / powers.sum(), rel=1e-5)
