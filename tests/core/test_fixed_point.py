"""The DPU's number rules, and their equality in every other language that implements them."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core import fixed_point
from tutelage.core.fixed_point import (
    EXACT_FLOAT32,
    INT8_MAX,
    INT8_MIN,
    accumulator_bound,
    average_bound,
    dequantise,
    integer_range,
    integers_of,
    pool_reciprocal,
    quantise,
    quantise_int8,
    relu6_highest,
    saturate,
    shift_round,
)
from tutelage.core.images.input_form import InputForm, float_table, int8_table
from tutelage.dpu.ops.lowering import finish, half, precision

FLOATS = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20)
POINTS = st.integers(-64, 64)


def test_halves_are_rounded_up_and_values_beyond_int8_saturate() -> None:
    values = np.array([0.5, -0.5, 1.49, 300.0, -300.0, 2.5, -2.5, math.nan, math.inf, -math.inf])
    found = quantise_int8(values, 0)
    assert found.dtype == np.int8
    assert found.tolist() == [1, 0, 1, 127, -128, 3, -2, 0, 127, -128]


@given(values=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1), point=POINTS)
def test_float64_equals_exact_fractions(values: list[float], point: int) -> None:
    half = Fraction(1, 2)
    rounded = [math.floor(Fraction(value) * Fraction(2) ** point + half) for value in values]
    wanted = [max(INT8_MIN, min(INT8_MAX, integer)) for integer in rounded]
    np.testing.assert_array_equal(quantise_int8(np.array(values, np.float64), point), wanted)


@given(values=FLOATS, point=POINTS)
def test_the_general_rule_is_the_same_at_eight_bits(values: list[float], point: int) -> None:
    array = np.array(values, np.float64)
    np.testing.assert_array_equal(
        quantise_int8(array, point), quantise(array, point, "DPU_ROUND", 8, signed=True)
    )


@given(acc=st.integers(-(2**38), 2**38), shift=st.integers(-24, 40))
def test_shifts_of_integers_follow_the_same_rule(acc: int, shift: int) -> None:
    """2**39 fits float64, so both are exact."""
    assert saturate(shift_round(np.array([acc]), shift)) == quantise_int8(
        np.array([acc], np.float64), -shift
    )


@given(point=POINTS)
def test_dequantised_values_come_back(point: int) -> None:
    q = np.arange(INT8_MIN, INT8_MAX + 1).astype(np.int8)
    real = dequantise(q, point)
    assert real.dtype == np.float32
    np.testing.assert_array_equal(quantise_int8(real, point), q)
    np.testing.assert_array_equal(saturate(integers_of(real, point)), q)


@given(
    mean=st.floats(0, 300, width=32), scale=st.floats(2.0**-10, 1, width=32),
    point=st.integers(-32, 32),
)  # fmt: skip
def test_the_table_of_pixels_follows_it(mean: float, scale: float, point: int) -> None:
    form = InputForm(4, 4, "grey", (mean,), (scale,))
    table = quantise_int8(float_table(form), point)
    np.testing.assert_array_equal(int8_table(form, point), table)


@given(point=st.integers(-8, 8))
def test_six_is_rounded_by_the_same_rule(point: int) -> None:
    rounded = quantise(np.array([6.0]), point, "DPU_ROUND", 16, signed=True)
    assert relu6_highest(point) == rounded.item()


def test_the_ranges_of_integers() -> None:
    assert integer_range(8, signed=True) == (INT8_MIN, INT8_MAX)
    assert integer_range(8, signed=False) == (0, 255)
    assert integer_range(1, signed=True) == (-1, 0)


@given(values=st.lists(st.floats(-300, 300, width=32), min_size=1), point=st.integers(-9, 9),
       bits=st.integers(2, 8))  # fmt: skip
@settings(deadline=None)
def test_torch_rounds_alike(values: list[float], point: int, bits: int) -> None:
    torch = pytest.importorskip("torch")
    fake = pytest.importorskip("tutelage.host.quantise.fake")
    lowest, highest = integer_range(bits, signed=True)
    found = fake.quantise(torch.tensor(values), point, lowest, highest)
    wanted = np.clip(quantise_int8(np.array(values, np.float32), point), lowest, highest)
    np.testing.assert_array_equal(found.numpy(), dequantise(wanted, point))


@given(shift=st.integers(0, 16), how=st.sampled_from(["round", "floor"]), wide=st.booleans(),
       seed=st.integers(0, 99))  # fmt: skip
@settings(deadline=None, max_examples=30)
def test_the_float_graphs_round_alike(shift: int, how: str, wide: bool, seed: int) -> None:
    """`finish` after the half step, on all accumulators for which `precision` allows float32."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    most = EXACT_FLOAT32 // 2 - 1 if how == "round" else EXACT_FLOAT32 - (1 << 16) - 1
    assert precision(most) == how
    rng = np.random.default_rng(seed)
    acc = np.concatenate([np.arange(-600, 600), rng.integers(-most, most + 1, 500), [most, -most]])
    found = _finished(acc, shift, how, np.float64 if wide else np.float32)
    np.testing.assert_array_equal(found, saturate(shift_round(acc, shift)))


def _finished(acc: np.ndarray, shift: int, how: str, dtype: Any) -> Any:
    import onnxruntime

    from tutelage.dpu.engine import onnx_file
    from tutelage.dpu.engine.onnx_lowering import Lowering

    program: Any = None
    low = Lowering(program, {}, [], [], [])
    total = low.node("Add", ["x", low.constant(half(how, shift), dtype)])
    result = finish(low, total, how, INT8_MIN, INT8_MAX, dtype)
    ends = [[onnx_file.value(name, dtype, ())] for name in ("x", result)]
    session = onnxruntime.InferenceSession(onnx_file.model(low.nodes, low.constants, *ends))
    return session.run(None, {"x": np.ldexp(acc.astype(dtype), -shift)})[0]


@given(width=st.integers(1, 40), height=st.integers(1, 40))
def test_the_bound_of_an_average_is_reached_by_the_least_value(width: int, height: int) -> None:
    numerator, _ = pool_reciprocal(width, height)
    assert average_bound(width, height) == -numerator * width * height * INT8_MIN
    assert width * height > 1024 or average_bound(width, height) <= EXACT_FLOAT32


@given(st.data())
@settings(deadline=None)
def test_no_sum_of_a_convolution_is_beyond_its_bound(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    weights = rng.integers(-128, 128, (3, 2, 2, 4))
    bias = rng.integers(-9999, 9999, 3)
    bound = accumulator_bound(weights, bias)
    signs = np.where(weights < 0, INT8_MIN, INT8_MAX)
    sums = (weights * signs).reshape(3, -1).sum(1) + bias
    assert np.abs(sums).max() <= bound
    assert accumulator_bound(weights, None, 1) == np.abs(weights).sum((1, 2, 3)).max()
    torch = pytest.importorskip("torch")
    both = accumulator_bound(torch.tensor(weights), torch.tensor(bias))
    assert both == bound and isinstance(both, int)


def test_the_boundary_of_float32() -> None:
    last = np.float32(EXACT_FLOAT32)
    assert last - 1 != last and last + np.float32(1) == last
    assert fixed_point.INT8_BOUND == -INT8_MIN
