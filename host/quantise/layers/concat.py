"""Concats of channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import Walker, meta_shape, shape_of, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.layers.convolution import Deployed


class Concat(Layer):
    """Concatenation of the channels of maps of equal height and width."""

    op_type = "concat"
    ties_fix_points = True
    joins = True

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.cat(xs, 1)

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        return model.concat(self.name, inputs)


@traces(torch.cat, torch.concat)
def concat(walk: Walker, node: fx.Node) -> None:
    """Add a concat of channels."""
    parts = node.args[0] if node.args else node.kwargs["tensors"]
    if walk.value(node, 1, "dim", 0) % len(meta_shape(node)) != 1:
        raise walk.error(node, "a concat along another axis", "concatenate channels (dim=1)")
    assert isinstance(parts, list | tuple)
    if not all(part in walk.origin for part in parts):
        raise walk.error(node, "a concat with a constant", "pass it as an input of the network")
    sizes = {walk.layers[walk.origin[p]].shape[1:] for p in parts if p in walk.origin}
    if len(sizes) > 1:
        raise walk.error(node, f"a concat of maps of {sorted(sizes)}", "use maps of equal size")
    names = tuple(walk.origin[part] for part in parts if isinstance(part, fx.Node))
    walk.add(node, Concat(names, shape_of(node)))


@onnx_form("concat")
def concat_form(graph: OnnxGraph, op: Op) -> str:
    """Export as Concat; channels are the second axis of maps in ONNX."""
    rank = op.get_output_tensor().ndim
    axis = int(op.get_attr("axis")) % rank
    return graph.node("Concat", graph.inputs(op), axis=(0, 2, 3, 1)[axis] if rank == 4 else axis)
