"""Layers at and beyond the limits of instructions and banks: split, or left to the CPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.dpu.compiler.test_board_networks import B4096, FINGERPRINTS, check_part
from tutelage.core.fingerprint import dpu_parts
from tutelage.core.fixed_point import Array
from tutelage.dpu.compiler.board.part import compile_part
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.ops.limits import BANK_DEPTH
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.xmodel.op import Op

B512, B1600 = FINGERPRINTS[0], FINGERPRINTS[4]


def _values(*shape: int) -> Array:
    return np.random.default_rng(0).integers(-60, 60, shape, dtype=np.int8)


def _image(model: CompiledModel, *dims: int) -> Op:
    return model.input(f"image{len(model.graph.get_ops())}", [1, *dims], 4)


def _mean(size: int, channels: int) -> Callable[[CompiledModel], Op]:
    return lambda m: m.avg_pool("mean", _image(m, size, size, channels), [size, size], [1, 1], 4)


def _depthwise(size: int, kernel: int, channels: int) -> Callable[[CompiledModel], Op]:
    weights, pad = _values(1, kernel, kernel, channels), [kernel // 2] * 4
    return lambda m: m.depthwise_conv2d(
        "dw", _image(m, size, size, channels), weights, 8, None, 0, 4, [1, 1], pad
    )


def _wide(m: CompiledModel) -> Op:
    return m.conv2d("wide", _image(m, 1, 1, 16), _values(8192, 1, 1, 16), 6, None, 0, 4)


def _sum(m: CompiledModel) -> Op:
    return m.add("sum", [_image(m, 7, 7, 4096), _image(m, 7, 7, 4096)], 4)


@pytest.mark.parametrize(
    "build, fingerprint",
    [
        (_mean(7, 2048), B512),
        pytest.param(_mean(56, 256), B4096, marks=pytest.mark.slow),
        (_mean(33, 256), B4096),
        (_depthwise(7, 5, 1392), B4096),
        (_depthwise(7, 5, 960), B1600),
        pytest.param(_depthwise(17, 16, 160), B4096, marks=pytest.mark.slow),
        (_wide, B4096),
        (_sum, B1600),
        (_sum, B512),
    ],
    ids=["mean-b512", "mean-56", "mean-33", "dw-5x5", "dw-b1600", "dw-16x16", "wide", "sum-b1600",
         "sum-b512"],
)  # fmt: skip
def test_layers_of_many_channels_are_split(
    build: Callable[[CompiledModel], Op], fingerprint: int
) -> None:
    model = CompiledModel("limits")
    model.output(build(model))
    check_part(dpu_parts(model.finish())[0], fingerprint, BANK_DEPTH, 1)


def test_an_unsplittable_layer_is_refused_by_name() -> None:
    model = CompiledModel("limits")
    image = _image(model, 1, 1, 8192)
    model.output(model.conv2d("deep", image, _values(4, 1, 1, 8192), 6, None, 0, 4))
    with pytest.raises(Refusal, match="kernel 1x1x8192") as stop:
        compile_part(dpu_parts(model.finish())[0], B4096)
    assert stop.value.op == "deep"


# -- former bugs --------------------------------------------------------------------------------


def _conv(
    m: CompiledModel, name: str, x: Op, outputs: int, kernel: int = 1, wide: int = 0,
    stride: tuple[int, int] = (1, 1), pad: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> Op:  # fmt: skip
    """A convolution; `wide` is the kernel's width if it differs from the height."""
    channels = x.get_output_tensor().dims[3]
    weights = _values(outputs, kernel, wide or kernel, channels)
    point = 7 if channels < 64 else 9
    return m.conv2d(name, x, weights, point, None, 0, 4, stride, pad, dilation=dilation)


def _siblings_in_strips(m: CompiledModel) -> None:
    x = _image(m, 1, 1500, 16)
    first = _conv(m, "a", x, 16, 1, 3)
    m.output(m.max_pool("pool", first, (2, 1), (2, 1)))
    m.output(_conv(m, "b", x, 16, 1, 3))


def _split_reader(m: CompiledModel) -> None:
    wide = _conv(m, "wide", _image(m, 24, 16, 16), 1024)
    weights = _values(1, 7, 7, 1024)
    m.output(m.depthwise_conv2d("dw", wide, weights, 8, None, 0, 4, [1, 1], [3] * 4))


def _phases_without_rows(m: CompiledModel) -> None:
    m.output(_conv(m, "c", _image(m, 1, 9, 5), 4, 2, pad=(1, 1, 2, 2), dilation=(2, 2)))


def _depthwise_chain(m: CompiledModel) -> None:
    x = _image(m, 64, 16, 512)
    for number in range(4):
        weights = _values(1, 5, 5, 512)
        x = m.depthwise_conv2d(f"dw{number}", x, weights, 8, None, 0, 4, [1, 1], [2] * 4)
    m.output(x)


def _sibling_blocks(m: CompiledModel) -> None:
    x = _image(m, 64, 16, 512)
    for name in "ab":
        y = _conv(m, name, x, 12, 3, pad=(1, 1, 1, 1))
        m.output(m.move(f"{name}_tile", "tile-fix", y, {"stride": 2, "reverse": True}))


def _gapped_concat(m: CompiledModel) -> None:
    x = _image(m, 32, 32, 16)
    joined = m.concat("joined", [_conv(m, f"part{n}", x, 1) for n in range(8)])
    m.output(_conv(m, "last", _conv(m, "deep", joined, 512, 3), 8))


def _output_that_is_a_part(m: CompiledModel) -> None:
    x = _image(m, 6, 6, 16)
    first, second = _conv(m, "a", x, 16), _conv(m, "b", x, 8)
    m.output(first)
    m.output(m.concat("joined", [first, second, first]))


def _siblings_that_skip_rows(m: CompiledModel) -> None:
    x = _image(m, 20, 12, 16)
    m.output(_conv(m, "low", x, 8, 1, 2, stride=(2, 2)))
    m.output(_conv(m, "tall", x, 8, 4, 1, stride=(2, 2)))


def _nested_flat_concats(m: CompiledModel) -> None:
    x = _image(m, 6, 6, 16)
    flat = [m.reshape(f"flat{n}", _conv(m, n, x, 8), [1, 288]) for n in "abc"]
    m.output(m.concat("all", [m.concat("two", flat[:2], axis=1), flat[2]], axis=1))


def _split_reader_of_uneven_parts(m: CompiledModel) -> None:
    x = _image(m, 7, 7, 16)
    joined = m.concat("joined", [_conv(m, "a", x, 12), _conv(m, "b", x, 700)])
    weights = _values(1, 7, 7, 712)
    m.output(m.depthwise_conv2d("dw", joined, weights, 8, None, 0, 4, [1, 1], [3] * 4))


def _split_sum_of_uneven_parts(m: CompiledModel) -> None:
    x = _image(m, 2, 2, 16)
    joined = m.concat("joined", [_conv(m, "a", x, 12), _conv(m, "b", x, 2100)])
    m.output(m.add("sum", [joined, _image(m, 2, 2, 2112)], 4))


def _siblings_of_other_tiles(m: CompiledModel) -> None:
    x = _image(m, 24, 24, 8)  # on a B512 a tile of the first has one row, of the second four
    m.output(_conv(m, "tall", x, 8, 13, 1, pad=(0, 0, 11, 2)))
    m.output(_conv(m, "low", x, 8, 4, 1))


_ONCE_WRONG = {
    "sibling strips": _siblings_in_strips,
    "split reader": _split_reader,
    "phases without rows": _phases_without_rows,
    "depthwise chain": _depthwise_chain,
    "sibling blocks": _sibling_blocks,
    "gapped concat": _gapped_concat,
    "output in a concat": _output_that_is_a_part,
    "siblings that skip rows": _siblings_that_skip_rows,
    "nested flat concats": _nested_flat_concats,
    "siblings of other tiles": _siblings_of_other_tiles,
    "split reader of uneven parts": _split_reader_of_uneven_parts,
    "split sum of uneven parts": _split_sum_of_uneven_parts,
}
_LONG = {"depthwise chain", "sibling blocks", "gapped concat"}


@pytest.mark.parametrize("fingerprint", [B4096, B512])
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in _LONG else n for n in _ONCE_WRONG],
)
def test_networks_that_were_once_wrong(name: str, fingerprint: int) -> None:
    for room in (BANK_DEPTH, 100):
        model = CompiledModel("case")
        _ONCE_WRONG[name](model)
        for part in dpu_parts(model.finish()):
            try:
                check_part(part, fingerprint, room, 1)
            except Refusal:
                assert room < BANK_DEPTH or fingerprint == B512
