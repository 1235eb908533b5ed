"""Maps of one pixel as vectors: the logits, and the flattening before a linear layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import OUTPUT, Walker, meta_shape, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.layers.convolution import Deployed


class Reshape(Layer):
    """[N, C, 1, 1] -> [N, C]."""

    op_type = "reshape"
    ties_fix_points = True

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        return model.reshape(self.name, inputs[0], (1, *self.shape))


@traces(nn.Flatten, torch.flatten, torch.reshape, "flatten", "view", "reshape")
def flatten(walk: Walker, node: fx.Node) -> None:
    """Give the map another name: linear layers take the map itself, in its own order."""
    source = walk.source(node)
    elements = torch.Size(walk.layers[source].shape).numel()
    if tuple(meta_shape(node)[1:]) != (elements,):
        advice = "only flattening to [N, features] before a linear layer works"
        raise walk.error(node, f"a reshape to {tuple(meta_shape(node))}", advice)
    walk.origin[node] = source


@traces(OUTPUT)
def output(walk: Walker, node: fx.Node) -> None:
    """Add the reshape of a network that returns vectors."""
    (given,) = node.all_input_nodes
    source = walk.layers[walk.origin[given]]
    if len(meta_shape(given)) == 2:
        if source.shape[1:] != (1, 1):
            raise walk.refusal("the output is a flattened map: end with a linear layer")
        walk.insert("logits", Reshape((source.name,), source.shape[:1]))


@onnx_form("flatten")
def flatten_form(graph: OnnxGraph, op: Op) -> str:
    """ONNX's Flatten."""
    return graph.node("Flatten", graph.inputs(op), axis=1)
