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


def test_what_no_split_helps_is_refused_by_name() -> None:
    model = CompiledModel("limits")
    image = _image(model, 1, 1, 8192)
    model.output(model.conv2d("deep", image, _values(4, 1, 1, 8192), 6, None, 0, 4))
    with pytest.raises(Refusal, match="a kernel of 1x1x8192") as stop:
        compile_part(dpu_parts(model.finish())[0], B4096)
    assert stop.value.op == "deep"
