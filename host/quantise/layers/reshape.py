"""Reshapes: of logits to vectors, and flattening before a linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from tutelage.host.quantise.graph.modules import VectorMap
from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import OUTPUT, Walker, meta_shape, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.layers.convolution import Deployed


class Reshape(Layer):
    """Reshape of maps of one pixel, [N, C, 1, 1] -> [N, C]."""

    op_type = "reshape"
    ties_fix_points = True

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        return model.reshape(self.name, inputs[0], (1, *self.shape))


class MapOfVector(Layer):
    """Reshape [N, H * W * C, 1, 1] -> [N, C, H, W] of values in the order with channels last."""

    op_type = "reshape"
    ties_fix_points = True

    def __init__(self, given: VectorMap, inputs: tuple[str, ...]) -> None:
        super().__init__(inputs, given.size)
        self.seen = given

    def forward(self, x: Tensor) -> Tensor:
        seen: Tensor = self.seen(x)
        return seen

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        return model.reshape(self.name, inputs[0], (1, *self.output_shape))


@traces(VectorMap)
def vector_map(walk: Walker, node: fx.Node) -> None:
    """Add a reshape of a vector to a map."""
    given = walk.module_of(node)
    assert isinstance(given, VectorMap)
    walk.add(node, MapOfVector(given, (walk.source(node),)))


@traces(nn.Flatten, torch.flatten, torch.reshape, "flatten", "view", "reshape", nn.Unflatten)
@traces(torch.squeeze, "squeeze", torch.unsqueeze, "unsqueeze")
def flatten(walk: Walker, node: fx.Node) -> None:
    """Use the map itself, since linear layers read maps in their own order."""
    source = walk.layers[walk.source(node)]
    after = tuple(meta_shape(node)[1:])
    if after not in ((torch.Size(source.shape).numel(),), source.shape) and not keeps_channels(
        source.shape, after
    ):
        advice = "flatten to [N, features] before a linear layer only"
        raise walk.error(node, f"a reshape to {tuple(meta_shape(node))}", advice)
    walk.alias(node)


def keeps_channels(before: Sequence[int], after: Sequence[int]) -> bool:
    """Return whether both shapes, without the batch, are of a vector or a map of one pixel."""
    channels = (before[0],)
    return tuple(before[1:]) in ((), (1, 1)) and tuple(after) in (channels, (*channels, 1, 1))


@traces(OUTPUT)
def output(walk: Walker, node: fx.Node) -> None:
    """Add the reshape of each output that is a vector."""
    given = node.args[0] if isinstance(node.args[0], tuple | list) else (node.args[0],)
    made: dict[fx.Node, str] = {}
    for place, value in enumerate(given):
        assert isinstance(value, fx.Node)
        if value not in made:
            made[value] = _end(walk, value)
        walk.layers[made[value]].output_places += (place,)


def _end(walk: Walker, value: fx.Node) -> str:
    """Return the name of the layer with an output in the network's own shape."""
    source = walk.layers[walk.origin[value]]
    shape = tuple(meta_shape(value)[1:])
    if shape == source.shape:
        return source.name
    if len(shape) == 1 and source.shape == (*shape, 1, 1):
        return walk.insert("logits", Reshape((source.name,), shape))
    advice = "return the maps themselves, and reshape them in the application"
    raise walk.error(value, f"an output of shape {shape} from a map {source.shape}", advice)


@onnx_form("flatten")
def flatten_form(graph: OnnxGraph, op: Op) -> str:
    """Export as Flatten."""
    return graph.node("Flatten", graph.inputs(op), axis=1)
