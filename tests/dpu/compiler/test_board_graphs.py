"""Quantised graphs, compiled for the ZCU104: what the DPU cannot compute goes to the CPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.dpu.compiler.test_board_networks import B4096
from tutelage.core.fixed_point import Array
from tutelage.dpu.compiler.board.graph import BoardModel, compile_for_board
from tutelage.dpu.compiler.quantised import QuantisedModel
from tutelage.dpu.engine.reference import load_engine
from tutelage.dpu.inspect.samples import random_inputs
from tutelage.dpu.xmodel.op import Op


def _values(*shape: int) -> Array:
    return np.random.default_rng(0).integers(-60, 60, shape, dtype=np.int8)


def _network(*dims: int, point: int = 4) -> tuple[QuantisedModel, Op]:
    model = QuantisedModel("net")
    return model, model.input("image", [1, *dims], point)


def _conv(m: QuantisedModel, name: str, x: Op, outputs: int = 16) -> Op:
    channels = x.get_output_tensor().dims[3]
    return m.conv2d(name, x, _values(outputs, 1, 1, channels), 7, None, 0, 4)


def _compiled(m: QuantisedModel) -> BoardModel:
    """Compile, and compare the outputs of the code with those of the quantised graph."""
    quantised = m.finish()
    found = compile_for_board(quantised, B4096)
    original, by_code = load_engine(quantised), load_engine(found.graph, engine="instructions")
    inputs = random_inputs(original.program, 2)
    wanted = [*original.run_all(*inputs).values()]
    for one, other in zip(by_code.run_all(*inputs).values(), wanted, strict=True):
        np.testing.assert_array_equal(one.reshape(other.shape), other)
    return found


def test_an_input_is_read_on_both_sides_of_an_op_on_the_cpu() -> None:
    m, x = _network(6, 6, 16)
    odd = m.graph.create_op("odd", "sigmoid", {}, {"input": [_conv(m, "first", x)]})
    m.output(m.add("sum", [x, m._fixed(odd, 4)], 4))
    assert len(_compiled(m).parts) == 2


def test_channels_are_shuffled_by_reshapes_to_five_axes() -> None:
    m, x = _network(4, 4, 16)
    five = m.reshape("five", _conv(m, "first", x), [1, 4, 4, 4, 4])
    order = m.move("order", "transpose", five, {"order": [0, 1, 2, 4, 3]})
    m.output(_conv(m, "last", m.reshape("four", order, [1, 4, 4, 16])))
    found = _compiled(m)
    assert len(found.parts) == 2 and len(found.on_cpu) == 1


def test_two_dense_layers_read_one_vector() -> None:
    m, x = _network(3, 3, 16)
    flat = m.reshape("flat", _conv(m, "first", x), [1, 144])
    for name in "ab":
        matrix = m._constant(f"{name}_matrix", _values(144, 5), 7)
        dense = m.graph.create_op(name, "matmul", {}, {"input": [flat, matrix]})
        m.output(m._fixed(dense, 2))
    assert not _compiled(m).on_cpu


def _rows_times_matrix(m: QuantisedModel, x: Op) -> Op:
    rows = m.reshape("rows", _conv(m, "first", x), [4, 16])
    matrix = m._constant("matrix", _values(16, 5), 7)
    return m._fixed(m.graph.create_op("refused", "matmul", {}, {"input": [rows, matrix]}), 4)


def _batch(m: QuantisedModel, x: Op) -> Op:
    batch = m.reshape("batch", _conv(m, "first", x), [2, 1, 2, 16])
    return _conv(m, "refused", batch)


def _deep_dense(m: QuantisedModel, x: Op) -> Op:
    pixel = m.avg_pool("pixel", x, [2, 2], [1, 1], 4)
    parts = [_conv(m, name, pixel, 2064) for name in "ab"]
    flat = m.reshape("flat", m.join("deep", parts, axis=3), [1, 4128])
    matrix = m._constant("matrix", _values(4128, 5) >> 4, 7)
    return m._fixed(m.graph.create_op("refused", "matmul", {}, {"input": [flat, matrix]}), 1)


def _far_concat(m: QuantisedModel, x: Op) -> Op:
    far = m.conv2d("far", x, _values(16, 1, 1, 16), 18, None, 0, 20)
    joined = m.graph.create_op("refused", "concat", {"axis": 3}, {"input": [x, far]})
    return m._fixed(joined, 20)


def _joined_pixel_shuffle(m: QuantisedModel, x: Op) -> Op:
    first, second = _conv(m, "first", x), _conv(m, "second", x)
    shuffled = m.move("refused", "pixel-shuffle", first, {"scale": 2, "upscale": True})
    m.output(m.join("rows", [first, second], axis=1))
    return shuffled


@pytest.mark.parametrize(
    "build, reason",
    [
        (_rows_times_matrix, "matrix products of 4 rows"),
        (_batch, "batch size 2"),
        (_deep_dense, "exceeds the DPU's banks"),
        (_far_concat, "too far apart"),
        (_joined_pixel_shuffle, "cannot be saved by a convolution"),
    ],
)
def test_an_op_is_refused_with_its_reason(
    build: Callable[[QuantisedModel, Op], Op], reason: str
) -> None:
    m, x = _network(2, 2, 16)
    m.output(build(m, x))
    refused = _compiled(m).on_cpu
    assert any("refused" in name and reason in why for name, why in refused.items()), refused


def test_negative_padding_is_refused() -> None:
    m, x = _network(4, 4, 16)
    attrs = {"paddings": [0, 0, 0, -1, 0, 0, 0, 0], "mode": "CONSTANT"}
    m.output(_conv(m, "last", m.move("crop", "pad", _conv(m, "first", x), attrs)))
    assert "net__crop" in compile_for_board(m.finish(), B4096).on_cpu
