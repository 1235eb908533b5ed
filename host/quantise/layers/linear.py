"""Linear layers, as convolutions over the whole map that they read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, fx, nn

from tutelage.core.fixed_point import Array
from tutelage.dpu.ops.limits import dense_shape
from tutelage.host.quantise.layers.convolution import Conv, numpy_of, share_parameters
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import Walker, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.layers.convolution import Deployed


class Dense(Conv):
    """A convolution over a whole map that is too large for a kernel, with the map reshaped.

    Attributes
    ----------
    view : height, width and channels of the map as the DPU reads it
    """

    def __init__(
        self, conv: nn.Conv2d, inputs: tuple[str, ...], shape: tuple[int, ...],
        view: tuple[int, int, int],
    ) -> None:  # fmt: skip
        super().__init__(conv, inputs, shape)
        self.view = view

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        rows = model.reshape(f"{self.name}/rows", inputs[0], (1, *self.view))
        return super().to_xmodel(model, [rows], fix_point, integers)

    def arranged(self, weights: Tensor) -> Array:
        return numpy_of(weights.permute(0, 2, 3, 1)).reshape(len(weights), *self.view)


@traces(nn.Linear)
def linear(walk: Walker, node: fx.Node) -> None:
    """Add a convolution over the whole map, whose weights are the linear layer's."""
    given = walk.module_of(node)
    assert isinstance(given, nn.Linear)
    source = walk.source(node)
    channels, height, width = walk.layers[source].shape
    if channels * height * width != given.in_features:
        raise walk.error(node, "Linear on a map", "flatten the map before it")
    has_bias = given.bias is not None
    conv = nn.Conv2d(channels, given.out_features, (height, width), bias=has_bias)
    with torch.no_grad():
        conv.weight.copy_(given.weight.view_as(conv.weight))
        if conv.bias is not None:
            conv.bias.copy_(given.bias)
            conv.bias.requires_grad_(given.bias.requires_grad)
    conv.weight.requires_grad_(given.weight.requires_grad)
    view = dense_shape(height, width, channels) or (height, width, channels)
    shape = (given.out_features, 1, 1)
    layer = Conv(conv, (source,), shape)
    if view != (height, width, channels):
        layer = Dense(conv, (source,), shape, view)
    share_parameters(walk, given, layer)
    walk.add(node, layer)


@onnx_form("reshape")
def reshape_form(graph: OnnxGraph, op: Op) -> str:
    """Export as Reshape; the values of maps are taken in the order with channels last."""
    (x,) = graph.inputs(op)
    before, after = op.get_input_tensor("input").dims, op.get_output_tensor().dims
    y = graph.node("Transpose", [x], perm=[0, 2, 3, 1]) if len(before) == 4 else x
    y = graph.node("Reshape", [y, graph.constant(np.array([-1, *after[1:]], np.int64))])
    y = graph.node("Transpose", [y], perm=[0, 3, 1, 2]) if len(after) == 4 else y
    graph.keep_fix_point(x, y)
    return y
