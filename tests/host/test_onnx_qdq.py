"""A student's ONNX file gives ONNX's defined values on CPUs with any byte multiplication."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime")
pytest.importorskip("openvino", reason="needs OpenVINO")

import onnx
import torch
from onnx.reference import ReferenceEvaluator

from tutelage.dpu.compiler.quantised import QuantisedModel
from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.bench.platform import entry
from tutelage.host.bench.subject_files import INT8_FILE
from tutelage.host.export.onnx_qdq import to_onnx
from tutelage.host.networks import create
from tutelage.host.quantise.calibrate import calibrate
from tutelage.host.quantise.quantisers import Bits
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.to_xmodel import to_quantised

RUNTIMES = ["onnxruntime-int8", "openvino-int8"]
EXTREMES = np.array([-128, 127], np.int8)
INPUT_POINT = 7
SHARES = [(0.0, 1.0), (1.0, 0.0), (0.5, 0.5)]
"""Shares of the two `EXTREMES`."""


def extreme(shape: tuple[int, ...], axis: int) -> np.ndarray:
    """int8 values at both ends: slices along `axis` are all -128, all 127, by turns, random."""
    values = np.random.default_rng(0).choice(EXTREMES, shape)
    slices = np.moveaxis(values, axis, 0)
    slices[0::4], slices[1::4] = EXTREMES[0], EXTREMES[1]
    slices[2::4] = np.resize(EXTREMES, slices[2::4].shape)
    return values


def convolved(model: QuantisedModel, x: Any, weights: np.ndarray, **options: Any) -> Any:
    """A convolution whose largest possible sum just fits its int8 output."""
    depthwise = options.get("kind") == "depthwise-conv2d"
    taps = weights[0, :, :, 0].size if depthwise else weights[0].size
    bias = extreme((weights.shape[3] if depthwise else len(weights),), 0)
    point = INPUT_POINT - int(np.ceil(np.log2(taps * 128 + 1)))
    return model.conv2d("conv", x, weights, 0, bias, INPUT_POINT, point, **options)


def defined(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Return the outputs of onnx's reference implementation, in numpy and node by node."""
    model: Any = onnx.load(str(path))
    # It has QuantizeLinear and DequantizeLinear from this version on, with the same meaning.
    model.opset_import[0].version = 19
    outputs: Any = ReferenceEvaluator(model).run(None, {"images": pixels})
    return np.asarray(outputs[0])


def assert_as_defined(
    graph: Graph, images: np.ndarray, runtimes: list[str], folder: Path
) -> np.ndarray:
    """Every runtime's logits are those of ONNX's reference implementation, which are returned.

    images : int8 (N, H, W, C)
    """
    pixels = images.transpose(0, 3, 1, 2) * np.float32(2.0**-INPUT_POINT)
    (folder / INT8_FILE).write_bytes(to_onnx(graph))  # the form that all processors accept
    wanted = defined(folder / INT8_FILE, pixels)
    for runtime in runtimes:
        platform = entry(runtime).make()
        platform.prepare(folder, 1)
        np.testing.assert_array_equal(platform.run(pixels), wanted, runtime)
    return wanted


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("height", "channels", "outputs", "kernel", "kind"),
    [
        (1, 3, 1, 1, "conv2d"),
        (1, 64, 17, 1, "conv2d"),
        (6, 4, 33, 1, "conv2d"),
        (9, 16, 8, 3, "conv2d"),
        (7, 5, 64, 5, "conv2d"),
        (9, 16, 1, 3, "depthwise-conv2d"),
        (6, 5, 1, 5, "depthwise-conv2d"),
    ],
)
def test_sums_do_not_saturate(
    height: int, channels: int, outputs: int, kernel: int, kind: str, runtime: str, tmp_path: Path
) -> None:
    """Two products of bytes do not fit 16 bits, where AVX2's u8*s8 multiplication adds them."""
    images = extreme((8, height, height, channels), 0)
    weights = extreme((outputs, kernel, kernel, channels), 3 if kind != "conv2d" else 0)
    model = QuantisedModel("net")
    x = model.input("image", (1, *images.shape[1:]), INPUT_POINT)
    pad = [kernel // 2] * 4
    model.output(convolved(model, x, weights, kind=kind, pad=pad))
    wanted = assert_as_defined(model.finish(), images, [runtime], tmp_path)
    assert len(np.unique(wanted)) > 2  # the compared values are not all at one limit


@st.composite
def convolutions(draw: Callable[..., Any]) -> tuple[Graph, np.ndarray]:
    """A convolution of any shape and extreme images for it."""
    kind = draw(st.sampled_from(["conv2d", "depthwise-conv2d"]))
    channels, kernel = draw(st.integers(1, 40)), (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    outputs = draw(st.integers(1, 40)) if kind == "conv2d" else 1
    size = draw(st.integers(7, 9)), draw(st.integers(7, 9))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    model = QuantisedModel("net")
    x = model.input("image", (1, *size, channels), INPUT_POINT)
    weights = rng.choice(EXTREMES, (outputs, *kernel, channels), p=draw(st.sampled_from(SHARES)))
    options: dict[str, Any] = {
        "pad": [draw(st.integers(0, k - 1)) for k in (*kernel[1:], *kernel[1:], *kernel[:1] * 2)],
        "stride": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        "dilation": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        "nonlinear": draw(st.sampled_from(["NONE", "RELU", "LEAKYRELU"])),
    }
    model.output(convolved(model, x, weights, kind=kind, **options))
    images = rng.choice(EXTREMES, (2, *size, channels), p=draw(st.sampled_from(SHARES)))
    return model.finish(), images


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_convolutions_of_any_shape(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[Graph, np.ndarray]
) -> None:
    assert_as_defined(*drawn, RUNTIMES, tmp_path_factory.mktemp("net"))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_concat_before_a_convolution(runtime: str, tmp_path: Path) -> None:
    """OpenVINO 2026.4 rounds a concat before an int8 QuantizeLinear to whole numbers."""
    rng = np.random.default_rng(0)
    identity = (64 * np.eye(8)).astype(np.int8).reshape(8, 1, 1, 8)
    model = QuantisedModel("net")
    x = model.input("image", (1, 4, 4, 8), INPUT_POINT)
    left = model.conv2d("left", x, identity, 6, None, 0, INPUT_POINT, nonlinear="RELU")
    right = model.conv2d("right", left, identity, 6, None, 0, INPUT_POINT, nonlinear="RELU")
    joined = model.concat("joined", [left, right])
    both = np.concatenate([identity, identity], axis=3)
    model.output(model.conv2d("both", joined, both, 6, None, 0, INPUT_POINT - 1))
    images = rng.integers(-128, 128, (3, 4, 4, 8), dtype=np.int8)
    wanted = assert_as_defined(model.finish(), images, [runtime], tmp_path)
    assert np.array_equal(wanted, np.maximum(images, 0).transpose(0, 3, 1, 2) / 64)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["densenet-tiny", "resnet-8", "mobilenet-small"])
def test_students(name: str, runtime: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = create(name, in_channels=1)
    images = torch.randint(-128, 128, (16, 1, 28, 28), dtype=torch.int8)
    for _ in range(20):
        network(images / 128)  # norms learn statistics
    student = Student(network, (1, 28, 28), Bits())
    calibrate(student, images / 128)
    graph = to_quantised(student.eval(), "net")
    assert_as_defined(graph, images.numpy().transpose(0, 2, 3, 1), [runtime], tmp_path)
