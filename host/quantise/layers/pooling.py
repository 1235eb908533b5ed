"""Maximum and average pools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from tutelage.core.errors import UnsupportedError
from tutelage.core.fixed_point import EXACT_FLOAT32, average_bound, pool_reciprocal
from tutelage.dpu.ops.factors import scale_of
from tutelage.dpu.ops.pooling import pool_factor
from tutelage.dpu.ops.sliding_window import Window, window_of
from tutelage.host.quantise.layers.base import (
    Layer,
    LayerThresholds,
    Move,
    Pair,
    pads,
    width_height,
)
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import Walker, meta_shape, shape_of, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.layers.convolution import Deployed


class Pool(Layer):
    """A pool with a window that moves over the map.

    Parameters
    ----------
    kernel, stride : (height, width) of the window and of its steps
    padding : (height, width) on each side of the map
    """

    def __init__(
        self, inputs: tuple[str, ...], shape: tuple[int, ...], kernel: Pair, stride: Pair,
        padding: Pair = (0, 0),
    ) -> None:  # fmt: skip
        super().__init__(inputs, shape)
        self.kernel, self.stride, self.padding = kernel, stride, padding


class MaxPool(Pool):
    """Maximum of each window; with `ceil` the last window may exceed the border."""

    op_type = "maxpool2d"
    ties_fix_points = True
    ceil = False

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel, self.stride, self.padding, ceil_mode=self.ceil)

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        kernel, stride = width_height(self.kernel), width_height(self.stride)
        return model.max_pool(self.name, inputs[0], kernel, stride, pads(self.padding), self.ceil)


class AvgPool(Pool):
    """Sum of each window, including padding, times the DPU's fixed-point reciprocal of its area."""

    op_type = "avgpool2d"

    def __init__(
        self, inputs: tuple[str, ...], shape: tuple[int, ...], kernel: Pair, stride: Pair,
        padding: Pair = (0, 0),
    ) -> None:  # fmt: skip
        super().__init__(inputs, shape, kernel, stride, padding)
        numerator, self.shift = pool_reciprocal(kernel[1], kernel[0])
        self.factor = numerator / 2**self.shift
        self.exact = average_bound(kernel[1], kernel[0]) < EXACT_FLOAT32

    def forward(self, x: Tensor) -> Tensor:
        factor = self.factor
        if not self.training and not self.exact:
            x = x.double()
        if self.kernel == tuple(x.shape[2:]) and self.padding == (0, 0):
            return x.sum((2, 3), keepdim=True) * factor
        total = F.avg_pool2d(x, self.kernel, self.stride, self.padding, divisor_override=1)
        return total * factor

    def illegal_shift(self, around: LayerThresholds) -> Move | None:
        return around.shift(around.inputs[0], gain=self.shift)

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        kernel, stride = width_height(self.kernel), width_height(self.stride)
        return model.avg_pool(self.name, inputs[0], kernel, stride, fix_point, pads(self.padding))


# -- from PyTorch ---------------------------------------------------------------------------


@traces(nn.MaxPool2d, F.max_pool2d)
def max_pool(walk: Walker, node: fx.Node) -> None:
    """Add a maximum pool."""
    if _pair(walk.attribute(node, 4, "dilation", 1)) != (1, 1):
        raise walk.error(node, "a dilated MaxPool2d", "use dilation=1")
    window = _window(walk, node)
    source = walk.source(node)
    layer = MaxPool((source,), shape_of(node), *window)
    layer.ceil = _windows(walk.layers[source].shape, *window) != shape_of(node)[1:]
    walk.add(node, layer)


@traces(nn.AvgPool2d, F.avg_pool2d)
def avg_pool(walk: Walker, node: fx.Node) -> None:
    """Add an average pool."""
    window = _window(walk, node)
    source = walk.source(node)
    if window[2] != (0, 0) and not walk.attribute(node, 5, "count_include_pad", True):
        what = "AvgPool2d with padding and count_include_pad=False"
        advice = (
            "use count_include_pad=True, as the DPU's divisor is fixed, or have it replaced "
            "(replace: avgpool_exclude_pad=avgpool)"
        )
        raise walk.error(node, what, advice)
    if walk.attribute(node, 6, "divisor_override"):
        raise walk.error(node, "AvgPool2d with divisor_override", "remove divisor_override")
    if _windows(walk.layers[source].shape, *window) != shape_of(node)[1:]:
        what = "AvgPool2d with ceil_mode and a window that exceeds the border"
        raise walk.error(node, what, "use ceil_mode=False, as the DPU's divisor is fixed")
    walk.add(node, AvgPool((source,), shape_of(node), *window))


@traces(nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d)
def adaptive_avg_pool(walk: Walker, node: fx.Node) -> None:
    """Add an average over equal parts of the map."""
    _add_adaptive(walk, node, AvgPool)


@traces(nn.AdaptiveMaxPool2d, F.adaptive_max_pool2d)
def adaptive_max_pool(walk: Walker, node: fx.Node) -> None:
    """Add a maximum over equal parts of the map."""
    if walk.attribute(node, 2, "return_indices", False):
        raise walk.error(node, "an adaptive max pool with indices", "set return_indices=False")
    _add_adaptive(walk, node, MaxPool)


@traces(torch.amax, "amax")
def maximum(walk: Walker, node: fx.Node) -> None:
    """Add a maximum over the rows, the columns or both."""
    axes = walk.value(node, 1, "dim", ())
    axes = {axis % 4 for axis in (axes if isinstance(axes, list | tuple) else (axes,))}
    kept = bool(walk.value(node, 2, "keepdim", False))
    is_map = len(meta_shape(node.all_input_nodes[0])) == 4
    if not is_map or not axes or not axes <= {2, 3} or (len(axes) == 1 and not kept):
        raise walk.error(node, f"a maximum over {sorted(axes)}", "use dim=(2, 3) and keepdim=True")
    source = walk.layers[walk.source(node)]
    channels, *size = source.shape
    height, width = (n if axis in axes else 1 for axis, n in enumerate(size, start=2))
    shape = (channels, size[0] // height, size[1] // width)
    walk.add(node, MaxPool((source.name,), shape, (height, width), (height, width)))


def _add_adaptive(walk: Walker, node: fx.Node, kind: type[Pool]) -> None:
    """Add a pool whose windows divide the map evenly, unless each is a single pixel."""
    source = walk.layers[walk.source(node)]
    before, after = source.shape[1:], shape_of(node)[1:]
    if before == after:
        walk.alias(node)
        return
    height, width = (b // a for b, a in zip(before, after, strict=True))
    if (height * after[0], width * after[1]) != before:
        what = f"{kind.__name__} of {before} to {after}"
        raise walk.error(node, what, "pool to 1x1, or to a size that divides the map")
    size = (height, width)
    walk.add(node, kind((source.name,), shape_of(node), size, size))


@traces(torch.mean, "mean")
def mean(walk: Walker, node: fx.Node) -> None:
    """Add an average over the whole map."""
    axes = walk.value(node, 1, "dim")
    if not isinstance(axes, list | tuple) or sorted(axis % 4 for axis in axes) != [2, 3]:
        raise walk.error(node, f"mean over {axes}", "take the mean over the whole map (dim=(2, 3))")
    _add_global_pool(walk, node)


def _add_global_pool(walk: Walker, node: fx.Node) -> None:
    source = walk.source(node)
    channels, height, width = walk.layers[source].shape
    size = (height, width)
    walk.add(node, AvgPool((source,), (channels, 1, 1), size, size))


def _window(walk: Walker, node: fx.Node) -> tuple[Pair, Pair, Pair]:
    """Return kernel, stride and padding of a pool, each (height, width)."""
    kernel = _pair(walk.attribute(node, 1, "kernel_size"))
    stride = _pair(walk.attribute(node, 2, "stride") or kernel)
    padding = _pair(walk.attribute(node, 3, "padding", 0))
    shape = walk.layers[walk.source(node)].shape
    sizes = [_windows(shape, kernel, stride, padding, ceil) for ceil in (False, True)]
    if shape_of(node)[1:] not in sizes:
        # PyTorch drops windows that begin beyond the map, for each axis; XIR for both or none.
        what = "a pool with ceil_mode whose last window begins in the padding"
        raise walk.error(node, what, "use ceil_mode=False")
    return kernel, stride, padding


def _windows(
    shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, ceil: bool = False
) -> tuple[int, ...]:
    """Return the number of rows and columns of a pool's output."""
    return tuple(
        (size + 2 * pad - k + (step - 1 if ceil else 0)) // step + 1
        for size, pad, k, step in zip(shape[1:], padding, kernel, stride, strict=True)
    )


def _pair(value: Any) -> Pair:
    if isinstance(value, list | tuple):
        return (value[0], value[-1])
    return value, value


# -- to ONNX --------------------------------------------------------------------------------


@onnx_form("maxpool2d")
def max_pool_form(graph: OnnxGraph, op: Op) -> str:
    """Export as MaxPool, which keeps the fix point of its input."""
    (x,) = graph.inputs(op)
    y = graph.node("MaxPool", [x], **_attributes(_window_of(op)))
    graph.keep_fix_point(x, y)
    return y


@onnx_form("avgpool2d")
def avg_pool_form(graph: OnnxGraph, op: Op) -> str:
    """Export as AveragePool, or as a Conv that applies the DPU's factor exactly."""
    scale, window = scale_of(op), _window_of(op)
    if scale is None:
        raise UnsupportedError(f"op {op.get_name()!r}: an average without the DPU's factor")
    factor, attributes = pool_factor(window), _attributes(window)
    (x,) = graph.inputs(op)
    if factor != 1 and graph.rounds:
        # The error of a quotient such as sum / 9 may change the rounding of halves; Conv is exact.
        numerator, shift = pool_reciprocal(window.kernel_w, window.kernel_h)
        channels = op.get_output_tensor().dims[3]
        kernel = np.full((channels, 1, window.kernel_h, window.kernel_w), numerator, np.int8)
        y = graph.node("Conv", [x, graph.parameter(kernel, shift)], group=channels, **attributes)
    else:
        y = graph.node("AveragePool", [x], count_include_pad=1, **attributes)
        y = y if factor == 1 else graph.node("Mul", [y, graph.scalar(factor)])
    graph.set_value(scale, y)
    return y


def _window_of(op: Op) -> Window:
    _, height, width, _ = op.get_input_tensor("input").dims
    return window_of(op.get_attrs(), height, width)


def _attributes(window: Window) -> dict[str, list[int]]:
    return {
        "kernel_shape": [window.kernel_h, window.kernel_w],
        "strides": [window.stride_h, window.stride_w],
        "pads": [window.pad_top, window.pad_left, window.pad_bottom, window.pad_right],
    }
