"""The DPU's number rules, against fractions, against PyTorch and against files of AMD's tools.

The rules were found by executing the instructions that AMD's compiler wrote. Expected values are
computed here from their formula in exact fractions, and with PyTorch's own pools.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.random_networks import INT8, Twins
from tutelage.core.errors import DpuError, UnsupportedError
from tutelage.core.fixed_point import least_bias_shift, pool_reciprocal, sum_is_exact
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.compiler.emulation import compile_graph, on_cpu
from tutelage.dpu.compiler.quantised import QuantisedModel
from tutelage.dpu.engine.reference import load_engine
from tutelage.dpu.ops import eltwise
from tutelage.dpu.ops.activation import HARD_SIGMOID_FACTOR
from tutelage.dpu.ops.products import shifted_bias
from tutelage.dpu.xmodel.graph import Graph

torch = pytest.importorskip("torch", reason="needs PyTorch's pools to compare with")


def _round(value: Fraction) -> int:
    """One rounding, half up, and int8's ends."""
    return max(-128, min(127, math.floor(value + Fraction(1, 2))))


def _outputs(graph: Graph, *inputs: np.ndarray) -> np.ndarray:
    """Return the integers of both engines, which must agree."""
    found = []
    for engine in ("reference", "fast"):
        model = load_engine(graph, engine)
        (output,) = model.program.outputs
        found.append(model.run(*inputs) * 2.0 ** int(output.get_attr("fix_point")))
    np.testing.assert_array_equal(found[0], found[1])
    return found[0].astype(np.int64)


# -- biases -----------------------------------------------------------------------------------


@pytest.mark.slow
@given(
    x=st.lists(INT8, min_size=3, max_size=3),
    weights=st.lists(INT8, min_size=3, max_size=3),
    bias=INT8,
    finer=st.integers(-16, 1),
    shift=st.integers(0, 16),
    nonlinear=st.sampled_from(["NONE", "RELU", "LEAKYRELU"]),
)
@settings(deadline=None, max_examples=200)
def test_a_convolution_rounds_once(
    x: list[int], weights: list[int], bias: int, finer: int, shift: int, nonlinear: str
) -> None:
    """``(2 acc + bias * 2**b) / 2**(shift + 1)``: a bias may be one bit finer than a product."""
    assume(-finer >= least_bias_shift(shift))
    model = CompiledModel("one")
    image = model.input("x", [1, 1, 1, 3], 4)
    kernel = np.array(weights, np.int8).reshape(1, 1, 1, 3)
    y = model.conv2d(
        "y", image, kernel, 6, np.array([bias], np.int8), 10 + finer, 10 - shift,
        nonlinear=nonlinear,
    )  # fmt: skip
    model.output(y)
    value = Fraction(sum(a * b for a, b in zip(x, weights, strict=True)))
    value = (value + Fraction(bias) / Fraction(2) ** finer) / 2**shift
    if nonlinear == "LEAKYRELU" and value < 0:
        value *= Fraction(26, 256)
    wanted = max(0, _round(value)) if nonlinear == "RELU" else _round(value)
    found = _outputs(model.finish(), np.array(x, np.int8).reshape(1, 1, 1, 3))
    assert found.item() == wanted


def test_a_bias_of_half_a_step_is_not_rounded_first() -> None:
    """acc 3, bias 1/2, shift 3: 3.5 / 8 is 0; a bias rounded first would make 4 / 8, hence 1."""
    model = CompiledModel("half")
    x = model.input("x", [1, 1, 1, 1], 0)
    one = np.ones((1, 1, 1, 1), np.int8)
    model.output(model.conv2d("y", x, one, 3, np.ones(1, np.int8), 4, 0))
    assert _outputs(model.finish(), np.full((1, 1, 1, 1), 3, np.int8)).item() == 0


def test_dense_layers_have_the_same_bias() -> None:
    """`inner-product-fix` and `matmul-fix` with acc 3, bias 1/2 and shift 3, as above."""
    for kind, argument in (("inner-product-fix", "weights"), ("matmul-fix", "input")):
        graph = Graph(kind)
        attrs = {"shape": [1, 1], "data_type": "XINT8"}
        x = graph.create_op("x", "data-fix", attrs)
        inputs, points = {"input": [x]}, [(x, 0)]
        for name, arg, value, point in (("w", argument, 1, 3), ("b", "bias", 1, 4)):
            shape = [1, 1] if name == "w" else [1]
            const = {"shape": shape, "data_type": "XINT8", "data": bytes([value])}
            op = graph.create_op(name, "const-fix", const)
            inputs.setdefault(arg, []).append(op)
            points.append((op, point))
        for op, point in points:
            op.get_output_tensor().set_attr("fix_point", point)
        y = graph.create_op("y", kind, {}, inputs)
        y.get_output_tensor().set_attr("fix_point", 0)
        for engine in ("reference", "fast"):
            assert load_engine(graph, engine).run(np.full((1, 1), 3, np.int8)).item() == 0, kind


def test_bytes_of_a_finer_bias_are_shifted_in_the_file_already() -> None:
    """Two bits finer: the bytes lose one, the fix point stays, the value is the same."""
    shifted = shifted_bias(np.array([6, -6], np.int8), 2)
    assert shifted is not None and shifted.tolist() == [3, -3]
    assert shifted_bias(np.array([5], np.int8), 2) is None
    twins = Twins("finer")
    x = twins.input("x", [1, 1, 1, 2], 3)
    kernel = np.array([[7, -3], [90, 60]], np.int8).reshape(2, 1, 1, 2)
    y = twins.conv2d("y", x, kernel, 4, np.array([-20, 36], np.int8), 9, 3)
    twins.output(y)
    compiled, quantised = twins.finish()
    images = np.random.default_rng(0).integers(-128, 128, (50, 1, 1, 2), dtype=np.int8)
    wanted = _outputs(compiled, images)
    found = load_engine(quantised).run(images * np.float32(2.0**-3)) * 8
    np.testing.assert_array_equal(found, wanted)
    again = compile_graph(quantised)
    np.testing.assert_array_equal(_outputs(again, images), wanted)
    const = next(op for op in again.get_ops() if op.get_output_tensor().dims == [2])
    assert const.get_output_tensor().get_attr("fix_point") == 9


def test_a_bias_that_would_be_rounded_stays_off_the_dpu() -> None:
    """The CPU computes the layer, since the rounding of such bytes by AMD's compiler is unknown."""
    model = QuantisedModel("odd")
    x = model.input("x", [1, 1, 1, 1], 3)
    kernel = np.ones((1, 1, 1, 1), np.int8)
    model.output(model.conv2d("y", x, kernel, 4, np.array([5], np.int8), 9, 3))
    (reason,) = on_cpu(model.finish()).values()
    assert reason == "bias shift -2 would round the bias"
    with pytest.raises(DpuError, match="bits that the DPU would drop"):
        compiled = CompiledModel("odd")
        x = compiled.input("x", [1, 1, 1, 1], 3)
        compiled.conv2d("y", x, kernel, 4, np.array([5], np.int8), 9, 3)


def test_fix_points_without_a_meaning_are_refused() -> None:
    model = CompiledModel("far")
    x = model.input("x", [1, 1, 1, 1], 3)
    model.output(model.max_pool("y", x, [1, 1], [1, 1]))
    graph = model.finish()
    graph.get_op("y").get_output_tensor().set_attr("fix_point", 1 << 30)
    with pytest.raises(UnsupportedError, match="fix point 1073741824 is out of range"):
        load_engine(graph, "reference").run(np.zeros((1, 1, 1, 1), np.int8))


# -- sums and products ---------------------------------------------------------------------------


def _sum_by_hand(values: list[int], points: list[int], out: int, relu: bool) -> int:
    """Each input floored to two bits below the coarsest (AMD's simulator), one rounding."""
    coarsest = min(points)
    kept = [math.floor(Fraction(4 * v) / 2 ** (p - coarsest)) for v, p in zip(values, points,
            strict=True)]  # fmt: skip
    found = _round(Fraction(sum(kept)) * Fraction(2) ** (out - coarsest) / 4)
    return max(0, found) if relu else found


def _join(kind: str, points: list[int], out: int, nonlinear: str = "NONE") -> Graph:
    model = CompiledModel(kind)
    inputs = [model.input(f"x{i}", [1, 1, 1, 1], p) for i, p in enumerate(points)]
    extra = (nonlinear,) if kind == "add" else ()
    model.output(getattr(model, kind)("y", inputs, out, *extra))
    return model.finish()


@pytest.mark.slow
@given(
    values=st.lists(INT8, min_size=2, max_size=4),
    points=st.lists(st.integers(-4, 12), min_size=4, max_size=4),
    out=st.integers(-4, 12),
    relu=st.booleans(),
)
@settings(deadline=None, max_examples=200)
def test_sums(values: list[int], points: list[int], out: int, relu: bool) -> None:
    points = points[: len(values)]
    graph = _join("add", points, out, "RELU" if relu else "NONE")
    found = _outputs(graph, *(np.full((1, 1, 1, 1), v, np.int8) for v in values))
    assert found.item() == _sum_by_hand(values, points, out, relu)


@pytest.mark.slow
def test_where_the_sum_differs_from_one_that_is_rounded_once() -> None:
    """(7, 3) -> 5: one pair in eight differs, by 1 (AMD's simulator; isa.md of the facts)."""
    a, b = (v.ravel() for v in np.meshgrid(np.arange(-128, 128), np.arange(-128, 128)))
    images = [v.astype(np.int8).reshape(-1, 1, 1, 1) for v in (a, b)]
    found = _outputs(_join("add", [7, 3], 5), *images).ravel()
    once = np.clip(np.floor((a + (b << 4)) / 4 + 0.5), -128, 127)
    assert (found != once).mean() == pytest.approx(1 / 8, abs=0.01)
    assert np.abs(found - once).max() == 1
    assert not sum_is_exact([7, 3], 5)


@pytest.mark.slow
@given(points=st.lists(st.integers(0, 6), min_size=2, max_size=3), out=st.integers(0, 8))
@settings(deadline=None, max_examples=60)
def test_exact_sums_are_exact(points: list[int], out: int) -> None:
    """If `sum_is_exact` is true, all inputs give the same as a single rounding at the end."""
    rng = np.random.default_rng(1)
    values = rng.integers(-128, 128, (len(points), 4000))
    graph = _join("add", points, out)
    found = _outputs(graph, *(v.astype(np.int8).reshape(-1, 1, 1, 1) for v in values)).ravel()
    exact = sum(v * 2.0**-p for v, p in zip(values, points, strict=True))
    once = np.clip(np.floor(exact * 2.0**out + 0.5), -128, 127)
    if sum_is_exact(points, out):
        np.testing.assert_array_equal(found, once)


@pytest.mark.slow
@given(a=INT8, b=INT8, points=st.tuples(*[st.integers(-3, 9)] * 3))
@settings(deadline=None, max_examples=100)
def test_products_are_exact(a: int, b: int, points: tuple[int, int, int]) -> None:
    graph = _join("multiply", list(points[:2]), points[2])
    found = _outputs(graph, *(np.full((1, 1, 1, 1), v, np.int8) for v in (a, b)))
    assert found.item() == _round(a * b * Fraction(2) ** (points[2] - points[0] - points[1]))


def test_a_factor_for_each_channel() -> None:
    """A squeeze-and-excite block's product: one rounding of each value times its channel's."""
    model = CompiledModel("scale")
    x, f = model.input("x", [1, 3, 4, 5], 5), model.input("f", [1, 1, 1, 5], 7)
    y = model.multiply("y", [x, f], 6)
    assert y.get_type() == "depthwise-fix"
    model.output(y)
    rng = np.random.default_rng(2)
    images = rng.integers(-128, 128, (6, 3, 4, 5), dtype=np.int8)
    factors = rng.integers(-128, 128, (6, 1, 1, 5), dtype=np.int8)
    wanted = np.clip(np.floor(images.astype(int) * factors / 64 + 0.5), -128, 127)
    np.testing.assert_array_equal(_outputs(model.finish(), images, factors), wanted)


@given(points=st.lists(st.integers(-64, 64), min_size=3, max_size=3), kind=st.booleans())
@settings(deadline=None, max_examples=60)
def test_far_fix_points_are_computed_or_refused(points: list[int], kind: bool) -> None:
    """No int64 overflows silently: Python's integers give the same."""
    name = "add" if kind else "multiply"
    values = np.array([[-128, 127], [-1, 5], [0, -7], [1, 1]])
    images = [v.astype(np.int8).reshape(-1, 1, 1, 1) for v in values.T]
    graph = _join(name, points[:2], points[2])
    found = load_engine(graph, "reference").run(*images).ravel() * 2.0 ** points[2]
    for result, (a, b) in zip(found, values.tolist(), strict=True):
        if kind:
            assert result == _sum_by_hand([a, b], points[:2], points[2], False)
        else:
            assert result == _round(a * b * Fraction(2) ** (points[2] - points[0] - points[1]))


@pytest.mark.parametrize("engine", ["reference", "fast"])
@pytest.mark.parametrize("kind", ["eltwise-fix", "pool-fix"])
def test_both_engines_refuse_a_type_that_they_do_not_know(kind: str, engine: str) -> None:
    model = CompiledModel("odd")
    x = model.input("x", [1, 4, 4, 1], 4)
    y = (
        model.add("y", [x, x], 4)
        if kind == "eltwise-fix"
        else model.max_pool("y", x, [2, 2], [1, 1])
    )
    model.output(y)
    graph = model.finish()
    y.set_attr("type", "x")
    with pytest.raises(UnsupportedError, match="type 'x' is not"):
        load_engine(graph, engine).run(np.zeros((1, 4, 4, 1), np.int8))


def test_an_eltwise_without_a_type_is_a_sum_in_both_engines() -> None:
    model = CompiledModel("sum")
    x = model.input("x", [1, 1, 1, 1], 4)
    y = model.add("y", [x, x], 4)
    model.output(y)
    graph = model.finish()
    del y._attrs["type"]
    assert _outputs(graph, np.full((1, 1, 1, 1), 5, np.int8)).item() == 10


# -- hard sigmoid and ReLU6 ------------------------------------------------------------------------


@pytest.mark.parametrize("points", [(2, 7), (4, 5), (7, 6), (5, 3), (-2, 4), (0, 7)])
def test_the_hard_sigmoid_runs_on_above_one(points: tuple[int, int]) -> None:
    """``max(0, 2731 q + 3 * 2731 * 2**p) / 2**(14 + p - p_out)`` (AMD's simulator)."""
    model = CompiledModel("sigmoid")
    x = model.input("x", [1, 1, 1, 256], points[0])
    model.output(model.hard_sigmoid("y", x, points[1]))
    q = np.arange(-128, 128)
    found = _outputs(model.finish(), q.astype(np.int8).reshape(1, 1, 1, 256)).ravel()
    wanted = [
        _round(max(Fraction(0), 2731 * (v + 3 * Fraction(2) ** points[0]))
               * Fraction(2) ** (points[1] - 14 - points[0]))
        for v in q.tolist()
    ]  # fmt: skip
    assert found.tolist() == wanted


def _hard_sigmoid_graph(point: int, out: int) -> Graph:
    """A hard sigmoid in AMD's form: divided by 6, times ``6 * 2731 / 2**14``, fixed."""
    model = QuantisedModel("sigmoid")
    x = model.input("x", [1, 1, 1, 256], point)
    graph = model.graph
    sigmoid = graph.create_op("s_i0", "hard-sigmoid", {}, {"input": [x]})
    factor = graph.create_const_op("s_i1", np.array([HARD_SIGMOID_FACTOR], np.float32))
    scaled = graph.create_op("s", "mul", {}, {"input": [sigmoid, factor]})
    model.output(model._fixed(scaled, out))
    return model.finish()


@pytest.mark.parametrize("out", range(3, 9))
@pytest.mark.parametrize("point", range(8))
def test_a_hard_sigmoid_is_compiled_where_it_stays_below_one(point: int, out: int) -> None:
    """Otherwise AMD's quantiser and the DPU disagree, and the CPU gives the quantiser's value."""
    graph = _hard_sigmoid_graph(point, out)
    x = np.arange(-128, 128).astype(np.float32).reshape(1, 1, 1, 256) * 2.0**-point
    wanted = np.clip(np.floor(np.clip(x + 3, 0, 6) * (2731 / 16384) * 2.0**out + 0.5), 0, 127)
    compiled = compile_graph(graph)
    for each in (graph, compiled):
        np.testing.assert_array_equal(load_engine(each).run(x) * 2.0**out, wanted)
    assert (on_cpu(graph) == {}) == (out >= 7 or point >= 6)


@pytest.mark.parametrize("point", [2, 3, 4, 5, 6])
def test_a_relu6_clips_at_96_on_the_dpu(point: int) -> None:
    """6 at fix point 4 only; above it int8 ends before 6, below it the layer stays off the DPU."""
    kernel = np.full((1, 1, 1, 1), 64, np.int8)
    model = CompiledModel("six")
    x = model.input("x", [1, 1, 1, 256], 3)
    ones = np.zeros((256, 1, 1, 256), np.int8)
    ones[np.arange(256), 0, 0, np.arange(256)] = 64
    model.output(model.conv2d("y", x, ones, 6, None, 0, point, nonlinear="RELU6"))
    q = np.arange(-128, 128).astype(np.int8).reshape(1, 1, 1, 256)
    found = _outputs(model.finish(), q).ravel()
    real = np.arange(-128, 128) / 8 * 2.0**point
    np.testing.assert_array_equal(found, np.clip(np.floor(real + 0.5), 0, 96))

    quantised = QuantisedModel("six")
    x = quantised.input("x", [1, 1, 256, 1], 3)
    quantised.output(quantised.conv2d("y", x, kernel, 6, None, 0, point, nonlinear="RELU6"))
    graph = quantised.finish()
    images = np.arange(-128, 128).astype(np.float32).reshape(1, 1, 256, 1) / 8
    wanted = np.clip(np.floor(np.clip(images, 0, 6) * 2.0**point + 0.5), 0, 127)
    for each in (graph, compile_graph(graph)):
        np.testing.assert_array_equal(load_engine(each).run(images) * 2.0**point, wanted)
    assert (on_cpu(graph) == {}) == (point >= 4)
    if point < 4:
        assert "the DPU clips ReLU6 at" in on_cpu(graph)["six__y"]


# -- average pools --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(3, 6), (6, 3)])
def test_averages_of_18_values_have_their_own_factor(size: tuple[int, int]) -> None:
    """14/256 of the sum: AMD's factor is ``36 * 7/256`` on the mean of 18 values."""
    numerator, shift = pool_reciprocal(*size)
    assert numerator / 2**shift == 14 / 256 == pytest.approx(1 / 18, rel=0.02)


@pytest.mark.parametrize(
    "kernel",
    [
        *((3, 3), (7, 7), (3, 6)),
        *(
            pytest.param(size, marks=pytest.mark.slow)
            for size in ((5, 5), (6, 6), (14, 14), (4, 7), (13, 13))
        ),
    ],
)
@pytest.mark.parametrize("gain", [-1, 0, 2])
def test_mean_and_factor_are_the_dpus_pool(kernel: tuple[int, int], gain: int) -> None:
    """Every possible sum of the window, as in a quantised file and as pooled by the DPU.

    They are equal in float32, AMD's own arithmetic: no sum rounds to another integer.
    """
    area = kernel[0] * kernel[1]
    sums = np.arange(-128 * area, 127 * area + 1)
    images = np.zeros((len(sums), area), np.int64)
    images[:] = (sums // area)[:, None]
    images += np.arange(area) < (sums % area)[:, None]
    images = images.reshape(-1, kernel[1], kernel[0], 1)[:: max(1, len(sums) // 6000)]
    twins = Twins("pool")
    x = twins.input("x", [1, kernel[1], kernel[0], 1], 4)
    twins.output(twins.avg_pool("y", x, kernel, kernel, 4 + gain))
    compiled, quantised = twins.finish()
    wanted = _outputs(compiled, images.astype(np.int8)).ravel()
    numerator, shift = pool_reciprocal(*kernel)
    total = images.sum((1, 2, 3))
    by_hand = [
        _round(Fraction(int(t) * numerator, 1 << shift) * Fraction(2) ** gain) for t in total
    ]
    assert wanted.tolist() == by_hand
    for engine in ("reference", "fast"):
        found = load_engine(quantised, engine).run(images * np.float32(2.0**-4))
        np.testing.assert_array_equal(found.ravel() * 2.0 ** (4 + gain), wanted)
    mean = total.astype(np.float32) / np.float32(area) * np.float32(2.0**-4)
    scaled = mean * np.float32(area * numerator / 2**shift) * np.float32(2.0 ** (4 + gain))
    in_float32 = np.clip(np.floor(scaled + np.float32(0.5)), -128, 127)
    np.testing.assert_array_equal(in_float32, wanted)


@pytest.mark.parametrize("size", [(64, 63), (100, 101), (56, 56), (256, 2)])
def test_averages_of_large_maps(size: tuple[int, int]) -> None:
    """Sums times the factor that pass 2^24, or 17 bits of shift, in both engines and both forms."""
    rng, (high, wide) = np.random.default_rng(4), size
    images = rng.integers(-128, 128, (40, high, wide, 1), dtype=np.int8)
    images[:20] = np.maximum(images[:20], 90)
    twins = Twins("pool")
    x = twins.input("x", [1, high, wide, 1], 4)
    twins.output(twins.avg_pool("y", x, (wide, high), (1, 1), 6))
    compiled, quantised = twins.finish()
    numerator, shift = pool_reciprocal(wide, high)
    totals = images.astype(int).sum((1, 2, 3)).tolist()
    wanted = [_round(Fraction(total * numerator, 1 << shift) * 4) for total in totals]
    assert _outputs(compiled, images).ravel().tolist() == wanted
    for engine in ("reference", "fast"):
        found = load_engine(quantised, engine).run(images * np.float32(2.0**-4)) * 64
        assert found.ravel().tolist() == wanted


@pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
@pytest.mark.parametrize(
    ("kernel", "stride", "pad"),
    [
        ((2, 2), (5, 5), (0, 3, 0, 3)),
        ((1, 1), (3, 3), (0, 1, 0, 1)),
        ((3, 1), (4, 4), (1, 3, 1, 0)),
    ],
)
def test_windows_inside_the_padding(
    kind: str, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, ...]
) -> None:
    """-128 for a maximum and 0 for an average; a DPU's windows begin on the map."""
    images = np.random.default_rng(5).integers(-128, 128, (4, 8, 8, 3), dtype=np.int8)
    model, quantised = CompiledModel("pool"), QuantisedModel("pool")
    graphs = []
    for each in (model, quantised):
        x = each.input("x", [1, 8, 8, 3], 4)
        extra = (4,) if kind == "avg_pool" else ()
        each.output(getattr(each, kind)("y", x, kernel, stride, *extra, pad=pad))
        graphs.append(each.finish())
    wanted = _outputs(graphs[0], images)
    for engine in ("reference", "fast"):
        found = load_engine(graphs[1], engine).run(images * np.float32(2.0**-4)) * 16
        np.testing.assert_array_equal(found, wanted)
    assert "smaller than the kernel" in " ".join(on_cpu(graphs[1]).values())


POOLS: list[dict[str, Any]] = [
    {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": True},
    {"kernel_size": (2, 3), "stride": (2, 2), "padding": (1, 0), "count_include_pad": False},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
    {"kernel_size": 4, "stride": 3, "padding": 1, "ceil_mode": True},
]


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("size", [(7, 10), (8, 9)])
def test_means_are_pytorchs(pool: dict[str, Any], size: tuple[int, int]) -> None:
    """`count_include_pad`, with `count_include_invalid` false, as always in PyTorch."""
    x = np.random.default_rng(3).integers(-128, 128, (2, 3, *size)).astype(np.float32)
    wanted = torch.nn.AvgPool2d(**pool)(torch.from_numpy(x)).permute(0, 2, 3, 1).numpy()

    def pair(name: str) -> list[int]:
        value = pool.get(name, 0)
        return [value, value] if isinstance(value, int) else list(value)[::-1]

    graph = Graph("pool")
    data = graph.create_op("x", "data", {"shape": [1, *size, 3], "data_type": "FLOAT32"})
    wide, high = pair("padding")
    attrs = {
        "kernel": pair("kernel_size"), "stride": pair("stride"), "pad": [wide, wide, high, high],
        "pad_mode": "CEIL" if pool.get("ceil_mode") else "FLOOR", "global": False,
        "count_include_pad": pool.get("count_include_pad", True), "count_include_invalid": False,
    }  # fmt: skip
    graph.create_op("y", "avgpool2d", attrs, {"input": [data]})
    for engine in ("reference", "fast"):
        found = load_engine(graph, engine).run(x.transpose(0, 2, 3, 1))
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-5)


def test_an_average_without_amds_factor_is_a_mean() -> None:
    """Files of other quantisers, without the DPU's factor 7/64, which stay on the CPU."""
    graph = Graph("mean")
    data = graph.create_op("x", "data", {"shape": [1, 3, 3, 1], "data_type": "FLOAT32"})
    fix = {"fix_point": 0, "bit_width": 8, "if_signed": True, "round_mode": "DPU_ROUND"}
    x = graph.create_op("x_fix", "fix", fix, {"input": [data]})
    attrs = {"kernel": [3, 3], "stride": [3, 3], "pad_mode": "FLOOR", "global": False}
    y = graph.create_op("y", "avgpool2d", attrs, {"input": [x]})
    graph.create_op("y_fix", "fix", fix, {"input": [y]})
    image = np.full((1, 3, 3, 1), 100, np.float32)  # 900 * 7/64 would be 98.4
    for each in (graph, compile_graph(graph)):
        assert load_engine(each).run(image).item() == 100
    assert "factor" in on_cpu(graph)["y"]


def test_products_lose_nothing_that_a_factor_needs() -> None:
    values = np.array([1 / 3, -2 / 7, 5e-9, 1e30, 0.0])
    found = eltwise._to_product_bits(values)
    np.testing.assert_allclose(found, values, rtol=2.0**-40)
    mantissas = np.ldexp(np.frexp(found)[0], eltwise.PRODUCT_BITS)
    np.testing.assert_array_equal(mantissas, np.rint(mantissas))
