"""Random networks for the board compiler: every kind of layer, sizes that fit a bank or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tutelage.core.fixed_point import RELU6_FIX_POINT, Array
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op

Draw = Callable[..., Any]

POINT = 4
"""Fix point of all maps, so that any may meet any."""


def _values(draw: Draw, *shape: int) -> Array:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(-128, 128, shape, dtype=np.int8)


def _dims(x: Op) -> tuple[int, int, int]:
    _, height, width, channels = x.get_output_tensor().dims
    return height, width, channels


def _window(draw: Draw, x: Op, most: int, strides: int) -> tuple[list[int], list[int], list[int]]:
    height, width, _ = _dims(x)
    kernel = [draw(st.integers(1, min(most, width))), draw(st.integers(1, min(most, height)))]
    stride = [draw(st.integers(1, strides)), draw(st.integers(1, strides))]
    pad = [draw(st.integers(0, k - 1)) for k in (kernel[0], kernel[0], kernel[1], kernel[1])]
    return kernel, stride, pad


def conv(draw: Draw, model: CompiledModel, x: Op, name: str) -> Op:
    """A convolution, sometimes dilated."""
    kernel, stride, pad = _window(draw, x, 5, 3)
    height, width, channels = _dims(x)
    outputs = draw(st.sampled_from([1, 3, 8, 12, 16, 17, 33, 48]))
    dilation = (1, 1)
    if stride == [1, 1] and draw(st.booleans()):
        across, down = ((size - 1) // max(1, k - 1) for size, k in zip((width, height), kernel,
                                                                       strict=True))  # fmt: skip
        dilation = (
            draw(st.integers(1, max(1, min(3, across)))),
            draw(st.integers(1, max(1, min(3, down)))),
        )
    groups = draw(st.sampled_from([g for g in (1, 1, 2, 3, 4, 16, 20) if channels % g == 0]))
    outputs = groups * -(-outputs // groups)
    weights = _values(draw, outputs, kernel[1], kernel[0], channels // groups)
    if draw(st.integers(0, 3)) == 0:  # some outputs do not read these channels
        weights *= np.random.default_rng(outputs).random((outputs, 1, 1, weights.shape[3])) < 0.1
    bias = _values(draw, outputs) if draw(st.booleans()) else None
    nonlinear = draw(st.sampled_from(["NONE", "RELU", "RELU6", "LEAKYRELU"]))
    assert POINT == RELU6_FIX_POINT
    return model.conv2d(
        name, x, weights, draw(st.integers(3, 9)), bias, draw(st.integers(0, 4)), POINT, stride,
        pad, nonlinear, dilation,
    )  # fmt: skip


def depthwise(draw: Draw, model: CompiledModel, x: Op, name: str) -> Op:
    """A depthwise convolution."""
    kernel, stride, pad = _window(draw, x, 4, 2)
    channels = _dims(x)[2]
    weights, bias = _values(draw, 1, kernel[1], kernel[0], channels), _values(draw, channels)
    nonlinear = draw(st.sampled_from(["NONE", "RELU", "RELU6"]))
    return model.depthwise_conv2d(name, x, weights, 6, bias, 3, POINT, stride, pad, nonlinear)


def transposed(draw: Draw, model: CompiledModel, x: Op, name: str) -> Op:
    """A transposed convolution."""
    kernel, stride, pad = _window(draw, x, 4, 3)
    channels, outputs = _dims(x)[2], draw(st.sampled_from([1, 5, 16, 20]))
    if draw(st.integers(0, 3)) == 0:
        weights, bias = _values(draw, 1, kernel[1], kernel[0], channels), _values(draw, channels)
        kind = "transposed-depthwise-conv2d"
        return model.conv2d(name, x, weights, 6, bias, 3, POINT, stride, pad, kind=kind)
    weights, bias = _values(draw, outputs, kernel[1], kernel[0], channels), _values(draw, outputs)
    return model.transposed_conv2d(name, x, weights, 7, bias, 3, POINT, stride, pad)


def pool(draw: Draw, model: CompiledModel, x: Op, name: str) -> Op:
    """A pool."""
    kernel, stride, pad = _window(draw, x, 5, 3)
    if draw(st.booleans()):
        nonlinear = draw(st.sampled_from(["NONE", "RELU"]))
        return model.max_pool(name, x, kernel, stride, pad, draw(st.booleans()), nonlinear)
    return model.avg_pool(name, x, kernel, stride, POINT, pad)


def concat(draw: Draw, model: CompiledModel, x: Op, name: str) -> Op:
    """A concat with a branch, or of the same map twice."""
    side = _same(draw, model, x, f"{name}_side", draw(st.sampled_from([3, 12, 16, 20])))
    parts = draw(st.sampled_from([[x, side], [side, x], [x, side, x], [side, side]]))
    return model.concat(name, parts)


def join(draw: Draw, model: CompiledModel, x: Op, name: str) -> Op:
    """A sum or product of two to four maps."""
    is_sum = draw(st.booleans())
    others = [
        _same(draw, model, x, f"{name}_side{number}", _dims(x)[2], draw(st.integers(3, 5)))
        for number in range(draw(st.integers(1, 3)) if is_sum else 1)
    ]
    if is_sum:
        return model.add(name, [x, *others], POINT, draw(st.sampled_from(["NONE", "RELU"])))
    return model.multiply(name, [x, *others], POINT)


def squeeze_and_excite(draw: Draw, model: CompiledModel, x: Op, name: str) -> Op:
    """A map times factors computed from it."""
    height, width, channels = _dims(x)
    mean = model.avg_pool(f"{name}_mean", x, [width, height], [1, 1], POINT)
    gate = _same(draw, model, mean, f"{name}_gate", channels)
    gate = model.hard_sigmoid(f"{name}_sigmoid", gate, 7)
    return model.multiply(name, [x, gate], POINT)


def upsample(draw: Draw, model: CompiledModel, x: Op, name: str) -> Op:
    """Pixels repeated."""
    scale = [float(draw(st.integers(1, 2))), float(draw(st.integers(1, 3)))]
    return model.move(name, "upsample-fix", x, {"scale": scale, "mode": "NEAREST"})


def downsample(draw: Draw, model: CompiledModel, x: Op, name: str) -> Op:
    """Pixels left out."""
    scale = [float(draw(st.integers(1, 3))), float(draw(st.integers(1, 3)))]
    return model.move(name, "downsample-fix", x, {"scale": scale})


def pad(draw: Draw, model: CompiledModel, x: Op, name: str) -> Op:
    """Zero padding."""
    border = [draw(st.integers(0, 4)) for _ in range(4)]
    attrs = {"paddings": [0, 0, *border, 0, 0], "mode": "CONSTANT"}
    return model.move(name, "pad-fix", x, attrs)


def blocks(draw: Draw, model: CompiledModel, x: Op, name: str) -> Op:
    """Space to depth or back."""
    height, width, channels = _dims(x)
    if channels % 4 == 0:
        return model.move(name, "tile-fix", x, {"stride": 2, "reverse": True})
    if height % 2 == 0 and width % 2 == 0:
        return model.move(name, "tile-fix", x, {"stride": 2, "reverse": False})
    return _same(draw, model, x, name, 4)


def pixel_shuffle(draw: Draw, model: CompiledModel, x: Op, name: str) -> Op:
    """A convolution whose channels become pixels, in PyTorch's order."""
    side = draw(st.integers(2, 3))
    wide = _same(draw, model, x, f"{name}_wide", draw(st.sampled_from([1, 3, 16, 17])) * side**2)
    return model.move(name, "pixel-shuffle-fix", wide, {"scale": side, "upscale": True})


def _same(
    draw: Draw, model: CompiledModel, x: Op, name: str, outputs: int, point: int = POINT
) -> Op:
    weights = _values(draw, outputs, 1, 1, _dims(x)[2])
    return model.conv2d(name, x, weights, draw(st.integers(4, 8)), None, 0, point)


def dense(draw: Draw, model: CompiledModel, x: Op, name: str) -> Op:
    """A dense layer over all values of a map."""
    height, width, channels = _dims(x)
    size = height * width * channels
    pixel = model.reshape(f"{name}_pixel", x, [1, 1, 1, size])
    return _same(draw, model, pixel, name, draw(st.sampled_from([1, 10, 40])))


LAYERS: Sequence[Callable[..., Op]] = (
    conv, conv, conv, depthwise, transposed, pool, concat, concat, join, squeeze_and_excite,
    upsample, downsample, blocks, pad, pixel_shuffle,
)  # fmt: skip

MOST_VALUES = 1 << 15
"""Largest number of values of a map; a network ends there, so that a test stays quick."""


@st.composite
def networks(draw: Draw) -> Graph:
    """A compiled graph of one to seven layers, of which some are outputs too."""
    model = CompiledModel("random")
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    x = model.input("image", [1, height, width, draw(st.sampled_from([1, 3, 4, 16, 20]))], POINT)
    for number in range(draw(st.integers(1, 7))):
        if np.prod(_dims(x)) > MOST_VALUES:
            break
        x = draw(st.sampled_from(LAYERS))(draw, model, x, f"layer{number}")
        if draw(st.integers(0, 5)) == 0:
            model.output(x)
            x = _same(draw, model, x, f"between{number}", draw(st.sampled_from([3, 16])))
    if np.prod(_dims(x)) <= 4096 and draw(st.booleans()):
        x = dense(draw, model, x, "dense")
    model.output(x)
    return model.finish()
