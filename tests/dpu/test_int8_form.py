"""The int8 form of the fast engine is equal in every value, or is not used."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("openvino", reason="needs openvino, which is not installed")

from tests.random_networks import int8, networks
from tutelage.core.errors import DpuError
from tutelage.core.fixed_point import Array
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.engine import fast, int8_form
from tutelage.dpu.engine.onnx_lowering import Lowering, analyse
from tutelage.dpu.engine.program import Program, build_program
from tutelage.dpu.engine.reference import Model, load_engine
from tutelage.dpu.engine.runtimes import PIECE
from tutelage.dpu.engine.upgrade import INT8_VARIABLE, UpgradedRuntime
from tutelage.dpu.xmodel.graph import Graph

EVERY_WAY = (1, 2 * PIECE + 1)
"""Batches that run on the graph of one image, and on both."""


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INT8_VARIABLE, "1")
    monkeypatch.delenv("TUTELAGE_RUNTIME", raising=False)
    monkeypatch.setattr(fast, "HAS_INT8", True)


def states(model: Model) -> list[str]:
    assert isinstance(model.engine, fast.FastEngine)
    runtimes = [stage.runtime for stage in model.engine.stages]
    return [found.state for found in runtimes if isinstance(found, UpgradedRuntime)]


def assert_equal(graph: Graph, images: Array) -> Model:
    """Every output of the fast engine is the reference's, for any number of images."""
    model, reference = load_engine(graph, "fast", threads=2), load_engine(graph, "reference")
    images = np.concatenate([images] * EVERY_WAY[-1])
    for batch in EVERY_WAY:
        wanted = reference.run_all(images[:batch])
        for name, values in model.run_all(images[:batch]).items():
            np.testing.assert_array_equal(values, wanted[name], err_msg=name)
    return model


RANDOM = settings(
    deadline=None, max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
@RANDOM
@given(case=networks())
def test_random_networks(
    whole: bool, case: tuple[Graph, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not whole:  # as on a processor without VNNI
        monkeypatch.setattr(int8_form, "sums_are_whole", lambda: False)
    assert_equal(*case)


def _small_network(rng: np.random.Generator, pool: bool = True) -> Graph:
    """Convolutions with signed and unsigned inputs, a concat, a sum, a pool with halves."""
    model = CompiledModel("small")
    x = model.input("image", (1, 8, 8, 3), 5)

    def conv(name: str, x: Any, outputs: int, size: int, nonlinear: str) -> Any:
        channels = x.get_output_tensor().dims[3]
        weights = rng.integers(-128, 128, (outputs, size, size, channels), np.int8)
        bias = rng.integers(-128, 128, outputs, np.int8)
        return model.conv2d(
            name, x, weights, 8, bias, 6, 4, pad=[size // 2] * 4, nonlinear=nonlinear
        )

    first, second = conv("a", x, 8, 3, "RELU"), conv("b", x, 8, 1, "NONE")
    x = conv("d", model.concat("c", [first, second]), 16, 3, "RELU")
    x = model.add("e", [x, conv("f", x, 16, 1, "RELU6")], 3)
    model.output(model.avg_pool("pool", x, [2, 2], [2, 2], 3) if pool else x)
    return model.finish()


@pytest.mark.parametrize("whole", [True, False])
def test_a_network_is_computed_in_int8(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not whole:
        monkeypatch.setattr(int8_form, "sums_are_whole", lambda: False)
    rng = np.random.default_rng(5)
    images = rng.choice(np.array([-128, 127, 3], np.int8), (1, 8, 8, 3))
    assert states(assert_equal(_small_network(rng), images)) == ["int8"]


@settings(deadline=None, max_examples=6)
@given(data=st.data())
def test_halves_round_up_without_a_bias(data: st.DataObject) -> None:
    """Sums that are halves of the result's step, with the same half step in every channel."""
    shift, channels = data.draw(st.integers(1, 12)), data.draw(st.sampled_from([1, 4, 17]))
    model = CompiledModel("halves")
    x = model.input("image", (1, 4, 4, channels), 0)
    weights = int8(data.draw, 6, 1, 1, channels)
    model.output(model.conv2d("conv", x, weights, 8, None, 8, 8 - shift))
    graph = model.finish()
    program = build_program(graph)
    grids, steps = analyse(program), program.steps
    form = int8_form.plan(program, steps)
    wrong = int8_form.differing(program, grids, form, steps, 1)
    assert wrong <= ({"conv"} if not int8_form.sums_are_whole() else set())
    acc = np.arange(-128, 128, dtype=np.int8).reshape(16, 4, 4, 1)
    assert_equal(graph, np.repeat(acc, channels, 3)[:1])


@settings(deadline=None, max_examples=10)
@given(kernel=st.tuples(st.integers(1, 6), st.integers(1, 6)), seed=st.integers(0, 99))
def test_average_pools_round_halves_up(kernel: tuple[int, int], seed: int) -> None:
    """OpenVINO used to lose a half step of 2**-10 or less when it merged it with a quantisation."""
    model = CompiledModel("pool")
    x = model.input("image", (1, 12, 12, 2), 5)
    model.output(model.avg_pool("pool", x, list(kernel), [1, 1], 5))
    program = build_program(model.finish())
    steps = program.steps
    form = int8_form.plan(program, steps)
    assert int8_form.differing(program, analyse(program), form, steps, 1) == set()


def test_a_layer_that_differs_stays_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, forms = np.random.default_rng(5), list[Any]()

    def spied(*args: Any, **rest: Any) -> Any:
        forms.append(args[5])
        return Lowering(*args, **rest)

    run_step = Program.run_step

    def wrong_for_d(program: Any, op: Any, values: Any) -> Array:
        found = run_step(program, op, values)
        return found + np.int8(1) if op.get_name() == "d" else found

    graph = _small_network(rng)
    model = load_engine(graph, "fast")
    wanted = load_engine(graph, "reference").run(image := np.ones((1, 8, 8, 3), np.int8))
    monkeypatch.setattr("tutelage.dpu.engine.int8_form.Lowering", spied)
    monkeypatch.setattr(Program, "run_step", wrong_for_d)
    np.testing.assert_array_equal(model.run(image), wanted)
    assert states(model) == ["int8"]
    assert "d" in forms[0].results and "d" not in forms[1].products | forms[1].results


class _Fixed:
    """A runtime that adds a number to its results."""

    def __init__(self, add: int) -> None:
        self.add, self.batches = add, [0]

    def run(self, arrays: list[Array]) -> list[Array]:
        self.batches.append(len(arrays[0]))
        return [arrays[0] + self.add]


IMAGE = np.arange(4, dtype=np.int64).reshape(4, 1)


def test_a_graph_that_differs_as_a_whole_is_not_used() -> None:
    wrong = _Fixed(2)
    runtime = UpgradedRuntime(_Fixed(1), lambda: (wrong, [IMAGE]), 1, at_once=True)
    for batch in (IMAGE[:1], np.concatenate([IMAGE] * 4)):
        np.testing.assert_array_equal(runtime.run([batch])[0], batch + 1)
    assert runtime.state == "refused" and wrong.batches == [0, 4]


def test_an_error_of_the_library_leaves_float32() -> None:
    def fails() -> Any:
        raise RuntimeError("no such kernel")

    runtime = UpgradedRuntime(_Fixed(1), fails, 1, at_once=True)
    np.testing.assert_array_equal(runtime.run([IMAGE])[0], IMAGE + 1)
    assert runtime.state == "refused"


def test_few_images_are_computed_in_float32() -> None:
    int8_runtime, made = _Fixed(1), []

    def make() -> Any:
        made.append(1)
        return int8_runtime, [IMAGE]

    runtime = UpgradedRuntime(_Fixed(1), make, 0)
    for _ in range(3):
        runtime.run([IMAGE])
    assert runtime.state == "float32" and not made
    for _ in range(200):
        runtime.run([IMAGE])
    assert runtime.state == "int8" and made == [1]


def test_threads_that_come_meanwhile_compute_in_float32() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow() -> Any:
        entered.set()
        assert leave.wait(30)
        return _Fixed(1), [IMAGE]

    runtime = UpgradedRuntime(_Fixed(1), slow, 0, at_once=True)
    first = threading.Thread(target=runtime.run, args=([IMAGE],))
    first.start()
    assert entered.wait(30)
    np.testing.assert_array_equal(runtime.run([IMAGE])[0], IMAGE + 1)
    assert runtime.state == "float32"
    leave.set()
    first.join()
    assert runtime.state == "int8"


def test_zero_keeps_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INT8_VARIABLE, "0")
    assert states(load_engine(_small_network(np.random.default_rng(1)), "fast")) == []
    monkeypatch.setenv(INT8_VARIABLE, "yes")
    with pytest.raises(DpuError, match="it must be 0 or 1"):
        load_engine(_small_network(np.random.default_rng(1)), "fast")
