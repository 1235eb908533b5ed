"""Both engines against each other, and the reference against arithmetic done by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.random_networks import int8, networks
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.engine.fast import FastEngine
from tutelage.dpu.engine.program import build_program
from tutelage.dpu.engine.reference import ReferenceEngine, load_engine
from tutelage.dpu.engine.runtimes import RUNTIME_VARIABLE
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op

RUNTIMES = ["openvino", "onnxruntime"]


def assert_equal_everywhere(graph: Graph, images: np.ndarray) -> FastEngine:
    """Every tensor of both engines is the same, in type and in every value."""
    fast = load_engine(graph, "fast", threads=2, trace=True)
    found = fast.trace(images)
    wanted = load_engine(graph, "reference").trace(images)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype, name
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert isinstance(fast.engine, FastEngine)
    return fast.engine


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(case=networks())
def test_random_networks(
    runtime: str, case: tuple[Graph, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="needs openvino, which is not installed")
    monkeypatch.setenv(RUNTIME_VARIABLE, runtime)
    assert_equal_everywhere(*case)


def _one_conv(weights: np.ndarray, bias: np.ndarray, shift: int, bias_shift: int = 0) -> Graph:
    model = CompiledModel("conv")
    x = model.input("image", (1, 4, 5, weights.shape[3]), 0)
    x = model.conv2d("conv", x, weights, 8, bias, 8 - bias_shift, 8 - shift, pad=(1, 1, 1, 1))
    model.output(x)
    return model.finish()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    "channels, fill, wide", [(113, 127, False), (115, 127, True), (1400, 127, True)]
)
@pytest.mark.parametrize("shift", [0, 11, 16])
def test_accumulators_beyond_float32(
    monkeypatch: pytest.MonkeyPatch,
    runtime: str,
    channels: int,
    fill: int,
    wide: bool,
    shift: int,
) -> None:
    """3 x 3 x 115 x 127 x 128 is just over 2**24: such layers leave plain float32."""
    monkeypatch.setenv(RUNTIME_VARIABLE, runtime)
    rng = np.random.default_rng(channels)
    weights = np.full((3, 3, 3, channels), fill, np.int8)
    weights[1] = rng.integers(-128, 128, weights.shape[1:])
    weights[2] = -128
    bias = np.array([-128, 1, 127], np.int8)
    graph = _one_conv(weights, bias, shift, bias_shift=3)
    images = np.full((3, 4, 5, channels), -128, np.int8)
    images[1] = rng.integers(-128, 128, images.shape[1:])
    images[2] = 127
    images[2, 0, 0, 0] = 126
    engine = assert_equal_everywhere(graph, images)
    assert engine.wide_ops == (["conv"] if wide else [])


def test_the_integer_path_is_needed() -> None:
    """An odd accumulator above 2**24 that float32 would round: the values differ by path."""
    weights = np.full((1, 3, 3, 200), 127, np.int8)
    weights[0, 1, 1, 0] = 126
    images = np.full((1, 4, 5, 200), 127, np.int8)
    images[0, 1, 1, 0] = 125
    graph = _one_conv(weights, np.zeros(1, np.int8), 0)
    acc = int((weights[0].astype(np.int64) * images[0, :3, :3].astype(np.int64)).sum())
    assert acc > 1 << 24 and int(np.float32(acc)) != acc
    assert_equal_everywhere(graph, images)


@st.composite
def _convolutions(draw: st.DrawFn) -> tuple[np.ndarray, ...]:
    outputs, inputs = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    weights = int8(draw, outputs, 3, 3, inputs)
    shifts = np.array([draw(st.integers(0, 16)), draw(st.integers(0, 16))])
    return weights, int8(draw, outputs), int8(draw, 1, 4, 5, inputs), shifts


@settings(deadline=None, max_examples=40)
@given(case=_convolutions())
def test_reference_convolution_by_hand(case: tuple[np.ndarray, ...]) -> None:
    """``clip(floor((sum x w + b 2**bias_shift) / 2**shift + 1/2))`` in Python's own integers."""
    weights, bias, images, (shift, bias_shift) = case
    model = load_engine(_one_conv(weights, bias, int(shift), int(bias_shift)), "reference")
    found = model.trace(images)["conv"]
    for row, column, output in itertools.product(range(4), range(5), range(len(weights))):
        acc = int(bias[output]) << int(bias_shift)
        for i, j in itertools.product(range(3), range(3)):
            y, x = row + i - 1, column + j - 1
            if 0 <= y < 4 and 0 <= x < 5:
                pairs = zip(images[0, y, x], weights[output, i, j], strict=True)
                acc += sum(int(a) * int(b) for a, b in pairs)
        wanted = min(127, max(-128, math.floor((2 * acc + (1 << int(shift))) / (2 << int(shift)))))
        assert found[0, row, column, output] == wanted


def test_an_average_pool_uses_the_dpus_reciprocal() -> None:
    model = CompiledModel("pool")
    x = model.input("image", (1, 7, 7, 1), 3)
    model.output(model.avg_pool("pool", x, (7, 7), fix_point=3))
    images = np.full((1, 7, 7, 1), 100, np.int8)
    # 4900 * 21 / 1024 = 100.49 rounds to 100; 121 gives 121.59, not 121.
    assert load_engine(model.finish(), "reference").trace(images)["pool"].item() == 100
    images[:] = 121
    assert load_engine(model.finish(), "reference").trace(images)["pool"].item() == 122


def test_batches_are_the_same_as_single_images() -> None:
    rng = np.random.default_rng(5)
    weights = rng.integers(-128, 128, (4, 3, 3, 3), dtype=np.int8)
    model = load_engine(_one_conv(weights, weights[:, 0, 0, 0], 9), "fast")
    images = rng.integers(-128, 128, (11, 4, 5, 3), dtype=np.int8)
    together = model.run(images)
    alone = np.concatenate([model.run(images[i : i + 1]) for i in range(11)])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_concat_of_an_input_in_another_shape_leaves_the_input_as_it_is(
    monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    """OpenVINO used to join such parts in the memory of the input that the convolutions read."""
    monkeypatch.setenv(RUNTIME_VARIABLE, runtime)
    rng = np.random.default_rng(6)
    model = CompiledModel("joined")
    paddings = {"paddings": [0, 0, 1, 2, 1, 1, 0, 0], "mode": "CONSTANT"}
    image = model.move("pad", "pad-fix", model.input("image", (1, 4, 6, 16), 2), paddings)

    def conv(name: str, channels: int) -> Op:
        weights = rng.integers(-20, 20, (channels, 1, 1, 16), dtype=np.int8)
        return model.conv2d(name, image, weights, 6, None, 5, 2, (1, 1), (0, 0, 0, 0))

    model.output(conv("other_reader", 17))
    rows = [
        model.reshape(f"{op.get_name()}_rows", op, (1, 7, 128, 1))
        for op in (image, conv("conv", 16))
    ]
    model.output(model.concat("joined", rows, axis=1))
    program = build_program(model.finish())
    images = {program.inputs[0].get_name(): rng.integers(-128, 128, (1, 4, 6, 16), dtype=np.int8)}
    names = {op.get_name() for op in program.outputs}
    found, wanted = (e(program).compute(images, names) for e in (FastEngine, ReferenceEngine))
    for name in names:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
