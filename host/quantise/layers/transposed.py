"""Transposed convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from tutelage.core.fixed_point import Array
from tutelage.dpu.ops.fix import rounded_constant
from tutelage.host.quantise.layers.base import Pair
from tutelage.host.quantise.layers.convolution import AnyConv, Conv, made_of, share_parameters
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import Walker, shape_of, traces

if TYPE_CHECKING:
    from tutelage.dpu.xmodel.op import Op


class TransposedConv(Conv):
    """A transposed convolution, depthwise or not, with its norm.

    `weight` is OIHW and not rotated. `output_padding` is subtracted from the padding at the bottom
    and the right.
    """

    op_types = "transposed-conv2d", "transposed-depthwise-conv2d"

    def __init__(self, conv: AnyConv, inputs: tuple[str, ...], shape: tuple[int, ...]) -> None:
        super().__init__(conv, inputs, shape)
        self.output_padding = cast("Pair", conv.output_padding)
        left, _, top, _ = self.pads
        down, across = self.output_padding
        self.pads = left, left - across, top, top - down

    def tie(self, weight: nn.Parameter) -> None:
        """Share the weights [I, O, H, W], of one group, with the convolution that has the same."""
        del self.weight
        self.tied = weight

    def __getattr__(self, name: str) -> Any:
        tied = self._parameters.get("tied")
        if name == "weight" and tied is not None:
            return tied.transpose(0, 1)
        return super().__getattr__(name)

    @staticmethod
    def outputs_first(conv: Any) -> Tensor:
        inputs, outputs, height, width = conv.weight.shape
        split = conv.weight.detach().view(
            conv.groups, inputs // conv.groups, outputs, height, width
        )
        copied: Tensor = split.transpose(1, 2).reshape(
            conv.groups * outputs, inputs // conv.groups, height, width
        )
        return copied.clone()

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        outputs, inputs, height, width = weight.shape
        split = weight.view(self.groups, outputs // self.groups, inputs, height, width)
        inputs_first = split.transpose(1, 2).reshape(self.groups * inputs, -1, height, width)
        left, _, top, _ = self.pads
        return F.conv_transpose2d(
            x, inputs_first, bias, self.stride, (top, left), self.output_padding, self.groups,
            self.dilation,
        )  # fmt: skip

    def arranged(self, weights: Tensor) -> Array:
        """Return the weights rotated by 180 degrees, as AMD's exporter does.

        Weights of groups become a block diagonal, with zeros between the groups.
        """
        if self.groups > 1 and not self.depthwise:
            parts = [torch.block_diag(*tap.unbind(0)) for tap in self._taps(weights)]
            height, width = self.kernel
            weights = torch.stack(parts, -1).view(len(weights), -1, height, width)
        return np.ascontiguousarray(super().arranged(weights)[:, ::-1, ::-1])

    def _taps(self, weights: Tensor) -> list[Tensor]:
        """Return the weights [G, O, I] of each position in the kernel."""
        outputs, inputs = weights.shape[:2]
        split = weights.reshape(self.groups, outputs // self.groups, inputs, -1)
        return list(split.unbind(-1))


@traces(nn.ConvTranspose2d)
def transposed_convolution(walk: Walker, node: fx.Node) -> None:
    """Add a transposed convolution."""
    conv = walk.module_of(node)
    assert isinstance(conv, nn.ConvTranspose2d)
    if len(node.args) + len(node.kwargs) > 1:
        raise walk.error(node, "a ConvTranspose2d with output_size", "set output_padding instead")
    layer = TransposedConv(conv, (walk.source(node),), shape_of(node))
    if min(layer.pads) < 0:
        what = f"ConvTranspose2d with output_padding {layer.output_padding}"
        raise walk.error(node, what, "use an output_padding no larger than the padding")
    down, across = ((k - 1) * d for k, d in zip(layer.kernel, layer.dilation, strict=True))
    if layer.pads[0] > across or layer.pads[2] > down:
        what = f"ConvTranspose2d with padding {conv.padding}"
        raise walk.error(node, what, "use a padding less than the kernel")
    encoder = walk.made.get(made_of(conv.weight, Conv, conv.weight.shape))
    if encoder is None or conv.groups > 1:
        share_parameters(walk, conv, layer)
    else:
        share_parameters(walk, conv, layer, ("bias",))
        layer.tie(encoder)
    walk.add(node, layer)


@onnx_form("transposed-conv2d", "transposed-depthwise-conv2d")
def transposed_form(graph: OnnxGraph, op: Op) -> str:
    """Export as ConvTranspose, with dequantised weights and bias."""
    (x,) = graph.inputs(op)
    weights, weights_point = rounded_constant(op.get_graph(), op.get_input_op("weights"))
    turned = weights[:, ::-1, ::-1]
    depthwise = op.get_type() == "transposed-depthwise-conv2d"
    weights = turned.transpose((3, 0, 1, 2))  # IOHW, or (channels, 1, H, W) of a depthwise one
    inputs = [x, graph.parameter(weights, weights_point)]
    if op.get_input_num("bias"):
        bias, point = rounded_constant(op.get_graph(), op.get_input_op("bias"))
        inputs.append(graph.bias(bias, point, x, weights_point))
    left, right, top, bottom = op.get_attr("pad")
    return graph.node(
        "ConvTranspose", inputs, group=len(weights) if depthwise else 1,
        kernel_shape=list(reversed(op.get_attr("kernel"))),
        strides=list(reversed(op.get_attr("stride"))),
        dilations=list(reversed(op.get_attr("dilation"))), pads=[top, left, bottom, right],
    )  # fmt: skip
