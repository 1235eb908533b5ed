"""Slices of channels, as concats or exact convolutions, and pixel shuffles."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from tutelage.host.quantise.graph.modules import ChannelSlice
from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.layers.concat import Concat
from tutelage.host.quantise.layers.convolution import Conv, add_identity
from tutelage.host.quantise.layers.reshape import keeps_channels
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import Walker, meta_shape, shape_of, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.layers.convolution import Deployed


class PixelShuffle(Layer):
    """Rearranges groups of `side` x `side` channels to blocks of pixels."""

    op_type = "pixel-shuffle"
    ties_fix_points = True

    def __init__(self, inputs: tuple[str, ...], shape: tuple[int, ...], side: int) -> None:
        super().__init__(inputs, shape)
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(x, self.side)

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        attrs = {"scale": self.side, "upscale": True}
        return model.move(self.name, "pixel-shuffle", inputs[0], attrs)


@traces(nn.PixelShuffle, F.pixel_shuffle)
def pixel_shuffle(walk: Walker, node: fx.Node) -> None:
    """Add a pixel shuffle, after a convolution, which on the DPU stores its channels as pixels."""
    side = walk.attribute(node, 1, "upscale_factor")
    before = walk.layers[walk.source(node)]
    plain = type(before) is Conv and not before.depthwise and before.dilation == (1, 1)
    if not plain or not walk.is_only_reader(node):
        before = add_identity(walk, node, 1)
    walk.add(node, PixelShuffle((before.name,), shape_of(node), side))


@traces(nn.PixelUnshuffle, F.pixel_unshuffle)
def pixel_unshuffle(walk: Walker, node: fx.Node) -> None:
    """Add a convolution with stride whose outputs are the pixels of a block."""
    side = walk.attribute(node, 1, "downscale_factor")
    source = walk.layers[walk.source(node)]
    channels = source.shape[0]
    conv = nn.Conv2d(channels, channels * side**2, side, side, groups=channels, bias=False)
    with torch.no_grad():
        picked = torch.eye(side**2).view(side**2, 1, side, side)
        conv.weight.copy_(picked.repeat(channels, 1, 1, 1))
    walk.add(node, Conv(conv.requires_grad_(False), (source.name,), shape_of(node)))


@traces(ChannelSlice)
def channel_slice(walk: Walker, node: fx.Node) -> None:
    """Add a slice of the channels of a map."""
    given = walk.module_of(node)
    assert isinstance(given, ChannelSlice)
    _add_slice(walk, node, given.start, given.start + shape_of(node)[0])


@traces(operator.getitem)
def item(walk: Walker, node: fx.Node) -> None:
    """Add a slice of the channels of a map, or a change of shape of a map of one pixel."""
    index = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    source = walk.layers[walk.source(node)]
    if index and index[0] == slice(None) and keeps_channels(source.shape, meta_shape(node)[1:]):
        walk.alias(node)
        return
    whole = (slice(None), Ellipsis)
    channels = index[1] if len(index) > 1 else None
    others = [part for place, part in enumerate(index) if place != 1]
    if not _is_known(channels) or any(part not in whole for part in others):
        advice = "index channels only (x[:, a:b]), or compute the parts by separate convolutions"
        raise walk.error(node, f"the index {index}", advice)
    assert isinstance(channels, slice)
    start, stop, step = channels.indices(source.shape[0])
    if step != 1:
        raise walk.error(node, f"a slice of channels with step {step}", "use step 1")
    _add_slice(walk, node, start, stop)


def _is_known(index: object) -> bool:
    """Return whether an index is a slice of constants, not of values computed by the network."""
    ends = (index.start, index.stop, index.step) if isinstance(index, slice) else (index,)
    return isinstance(index, slice) and all(end is None or isinstance(end, int) for end in ends)


def _add_slice(walk: Walker, node: fx.Node, start: int, stop: int) -> None:
    """Add a slice of channels: inputs of a concat if they match, else an exact convolution."""
    source = walk.layers[walk.source(node)]
    if (start, stop) == (0, source.shape[0]):
        walk.alias(node)
        return
    parts = _parts(walk, source, start, stop)
    if parts:
        name = parts[0]
        if len(parts) > 1:
            name = walk.insert(f"{node.name}/parts", Concat(tuple(parts), shape_of(node)))
        walk.origin[node] = name
        return
    conv = nn.Conv2d(source.shape[0], stop - start, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(source.shape[0])[start:stop, :, None, None])
    layer = Conv(conv.requires_grad_(False), (source.name,), shape_of(node))
    walk.add(node, layer)


def _parts(walk: Walker, source: Layer, start: int, stop: int) -> list[str]:
    """Return the inputs of a concat that are exactly the channels from start to stop; else []."""
    found, first = [], 0
    for name in source.inputs if isinstance(source, Concat) else ():
        end = first + walk.layers[name].shape[0]
        if start <= first and end <= stop:
            found.append(name)
        first = end
    channels = sum(walk.layers[name].shape[0] for name in found)
    return found if channels == stop - start else []


@onnx_form("pixel-shuffle")
def pixel_shuffle_form(graph: OnnxGraph, op: Op) -> str:
    """Export as DepthToSpace, with PyTorch's order of channels."""
    (x,) = graph.inputs(op)
    y = graph.node("DepthToSpace", [x], blocksize=int(op.get_attr("scale")), mode="CRD")
    graph.keep_fix_point(x, y)
    return y
