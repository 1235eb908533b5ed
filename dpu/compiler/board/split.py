"""Splitting of layers with more channels than an instruction or a bank supports.

MISC computes each channel separately, and a convolution's output channels are independent. So a
layer can be computed in parts that write to adjacent channels of one map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from tutelage.dpu.compiler.board.network import Network, Node, View
from tutelage.dpu.isa.machine import Shape
from tutelage.dpu.ops.engine_layers import AluLayer, ConvLayer, EltwiseLayer, EngineLayer
from tutelage.dpu.ops.limits import BANK_DEPTH

MAX_GROUPS = 256
"""Most channel groups per instruction: `channel_group`."""

MAX_SAVED = 4096
"""Most channels of a SAVE."""


def split_channels(network: Network, shape: Shape, room: int) -> Network:
    """Return the network with such layers split into parts.

    Parameters
    ----------
    room : rows of a bank available for maps
    """
    nodes = [part for node in network.nodes for part in _parts(node, shape, room)]
    return replace(network, nodes=nodes)


def _parts(node: Node, shape: Shape, room: int) -> Iterator[Node]:
    """Yield a node, or nodes for adjacent channels of its result."""
    channels = node.outputs[0].channels
    most = _most_channels(node, shape, room)
    if channels <= most:
        yield node
        return
    count = -(-channels // most)
    each = -(-channels // (count * shape.width)) * shape.width
    for first in range(0, channels, each):
        size = min(each, channels - first)
        outputs = [_part_of(view, first, size) for view in node.outputs]
        inputs = node.inputs
        if not isinstance(node.layer, ConvLayer):
            inputs = [_part_of(view, first, size) for view in node.inputs]
        yield Node(_layer_part(node.layer, first, size), inputs, outputs)


def _most_channels(node: Node, shape: Shape, room: int) -> int:
    """Return the most channels of the result that a layer can compute in one pass."""
    layer, width = node.layer, shape.width
    groups = MAX_SAVED // width
    if isinstance(layer, ConvLayer):
        return groups * width if layer.side == 1 else len(layer.weights)
    groups = min(groups, MAX_GROUPS)
    if isinstance(layer, AluLayer):
        taps = math.prod(layer.kernel)
        if layer.weights is not None:
            groups = min(groups, BANK_DEPTH // taps)
        slots = -(-layer.kernel[0] // (layer.stride[0] * shape.array.rows)) * layer.stride[0]
        groups = min(groups, room // (slots * layer.kernel[1]))
    elif not isinstance(layer, EltwiseLayer):
        return node.outputs[0].channels
    return max(1, groups) * width


def _part_of(view: View, first: int, channels: int) -> View:
    return replace(view, first=view.first + first, channels=channels)


def _layer_part(layer: EngineLayer, first: int, channels: int) -> EngineLayer:
    """Return the layer for some of its channels, for a convolution those of the result."""
    end = first + channels
    if isinstance(layer, ConvLayer):
        return replace(layer, weights=layer.weights[first:end], bias=layer.bias[first:end])
    if isinstance(layer, AluLayer):
        weights = None if layer.weights is None else layer.weights[..., first:end]
        bias = None if layer.bias is None else layer.bias[first:end]
        return replace(layer, weights=weights, bias=bias)
    return layer
