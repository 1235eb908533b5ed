"""Random networks for the engines' tests, drawn by Hypothesis through the model writer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tutelage.core.fixed_point import RELU6_FIX_POINT, sum_is_exact
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.compiler.quantised import QuantisedModel
from tutelage.dpu.ops.registry import op_type
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op
from tutelage.dpu.xmodel.tensor import Tensor

INT8 = st.integers(-128, 127)


def int8(draw: Callable[..., Any], *shape: int) -> np.ndarray:
    """Random int8 values; some draws have only extreme values."""
    seed, extreme = draw(st.integers(0, 2**32 - 1)), draw(st.booleans())
    rng = np.random.default_rng(seed)
    if extreme:
        return rng.choice(np.array([-128, 127], np.int8), shape)
    return rng.integers(-128, 128, shape, dtype=np.int8)


def _point(op: Op) -> int:
    return int(op.get_output_tensor().get_attr("fix_point"))


def _conv(draw: Callable[..., Any], model: CompiledModel, x: Op, name: str) -> Op:
    _, height, width, channels = x.get_output_tensor().dims
    kind = draw(st.sampled_from(["conv2d", "depthwise_conv2d", "transposed_conv2d"]))
    kernel_h = draw(st.integers(1, min(3, height)))
    kernel_w = draw(st.integers(1, min(3, width)))
    outputs = 1 if kind == "depthwise_conv2d" else draw(st.integers(1, 5))
    weights = int8(draw, outputs, kernel_h, kernel_w, channels)
    bias = int8(draw, channels if kind == "depthwise_conv2d" else outputs)
    acc = _point(x) + (weights_point := draw(st.integers(-2, 9)))
    point = acc - draw(st.integers(0, 16))
    nonlinear = draw(st.sampled_from(["NONE", "RELU", "RELU6", "LEAKYRELU"]))
    if isinstance(model, Twins):
        nonlinear, point = _fused(kind.replace("_", "-"), nonlinear, point, acc)
    pad = [draw(st.integers(0, kernel_w - 1)), 0, draw(st.integers(0, kernel_h - 1)), 0]
    pad[1], pad[3] = draw(st.integers(0, kernel_w - 1)), draw(st.integers(0, kernel_h - 1))
    result: Op = getattr(model, kind)(
        name, x, weights, weights_point,
        bias if draw(st.booleans()) else None,
        acc - draw(st.integers(0, 16)), point,
        stride=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        pad=pad,
        nonlinear=nonlinear,
    )  # fmt: skip
    return result


def _fused(kind: str, nonlinear: str, point: int, acc: int) -> tuple[str, int]:
    """An activation and an output's fix point that mean the same to AMD's quantiser and the DPU."""
    if nonlinear not in op_type(kind).fuses:
        return "NONE", point
    if nonlinear == "RELU6" and 0 <= acc - RELU6_FIX_POINT <= 16:
        return nonlinear, RELU6_FIX_POINT
    return "RELU" if nonlinear == "RELU6" else nonlinear, point


def _pool(draw: Callable[..., Any], model: CompiledModel, x: Op, name: str) -> Op:
    _, height, width, _ = x.get_output_tensor().dims
    kernel = draw(st.integers(1, min(7, width))), draw(st.integers(1, min(7, height)))
    stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    pad = [draw(st.integers(0, k - 1)) for k in (kernel[0], kernel[0], kernel[1], kernel[1])]
    if draw(st.booleans()):
        return model.max_pool(name, x, kernel, stride, pad)
    return model.avg_pool(name, x, kernel, stride, _point(x) + draw(st.integers(-2, 2)), pad)


def _join(draw: Callable[..., Any], model: CompiledModel, x: Op, name: str) -> Op:
    other = _conv_same(draw, model, x, f"{name}_side")
    kind = draw(st.sampled_from(["concat", "add", "multiply"]))
    if kind == "concat":
        return model.concat(name, [x, other])
    point = _point(x) + draw(st.integers(-3, 3))
    if kind == "add":
        if isinstance(model, Twins) and not sum_is_exact([_point(x), _point(other)], point):
            point = min(_point(x), _point(other))
        shape = draw(st.sampled_from(["NONE", "RELU"]))
        return model.add(name, [x, other], point, shape)
    return model.multiply(name, [x, other], point)


def _conv_same(draw: Callable[..., Any], model: CompiledModel, x: Op, name: str) -> Op:
    channels = x.get_output_tensor().dims[3]
    weights = int8(draw, channels, 1, 1, channels)
    point = draw(st.integers(0, 8))
    return model.conv2d(name, x, weights, point, None, 0, _point(x))


class Twin:
    """The ops of one layer in two models."""

    def __init__(self, compiled: Op, quantised: Op) -> None:
        self.ops = compiled, quantised

    def get_output_tensor(self) -> Tensor:
        return self.ops[0].get_output_tensor()


class Twins:
    """Builder of a network in compiled and in quantised form, with the same calls."""

    def __init__(self, name: str) -> None:
        self.models = CompiledModel(name), QuantisedModel(name)

    def __getattr__(self, method: str) -> Callable[..., Twin]:
        def call(*args: Any, **kwargs: Any) -> Twin:
            made = []
            for side, model in enumerate(self.models):
                own = [_side(value, side) for value in args]
                made.append(getattr(model, method)(*own, **kwargs))
            return Twin(*made)

        return call

    def finish(self) -> tuple[Graph, Graph]:
        compiled, quantised = self.models
        return compiled.finish(), quantised.finish()


def _side(value: Any, side: int) -> Any:
    if isinstance(value, list):
        return [_side(item, side) for item in value]
    return value.ops[side] if isinstance(value, Twin) else value


@st.composite
def networks(draw: Callable[..., Any], model_class: Any = CompiledModel) -> tuple[Any, np.ndarray]:
    """A graph of one to five layers (compiled by default), and a batch of int8 images for it."""
    model = model_class("random")
    dims = [1, draw(st.integers(2, 9)), draw(st.integers(2, 9)), draw(st.integers(1, 4))]
    x = model.input("image", dims, draw(st.integers(-2, 7)))
    for number in range(draw(st.integers(1, 5))):
        layer = draw(st.sampled_from([_conv, _pool, _join]))
        x = layer(draw, model, x, f"layer{number}")
        if min(x.get_output_tensor().dims[1:3]) < 2:
            break
    model.output(x)
    return model.finish(), int8(draw, draw(st.integers(1, 6)), *dims[1:])
