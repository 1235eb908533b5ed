"""Outputs with another shape or order than the DPU's maps, arranged on the CPU without rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from tutelage.host.quantise.graph.modules import Join, Layout, Pick
from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import Walker, meta_shape, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.layers.convolution import Deployed


class LaidOut(Layer):
    """The values of a map or vector, reshaped and permuted (`Layout`)."""

    op_type = "reshape"
    ties_fix_points = True
    channels_last = False

    def __init__(self, given: Layout, inputs: tuple[str, ...]) -> None:
        super().__init__(inputs, given.shape)
        self.layout = given

    def forward(self, x: Tensor) -> Tensor:
        laid_out: Tensor = self.layout(x)
        return laid_out

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        (op,), split, order = inputs, self.layout.split, self.layout.order
        if order != tuple(range(len(order))):
            op = model.reshape(f"{self.name}/split", op, (1, *split))
            axes = [0, *(place + 1 for place in order)]
            op = model.move(f"{self.name}/order", "transpose", op, {"order": axes})
        return model.reshape(self.name, op, (1, *self.shape))


class Joined(Layer):
    """Concatenation along an axis (`Join`)."""

    op_type = "concat"
    ties_fix_points = True
    channels_last = False

    def __init__(self, axis: int, inputs: tuple[str, ...], shape: tuple[int, ...]) -> None:
        super().__init__(inputs, shape)
        self.axis = axis

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.cat(xs, self.axis)

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        return model.join(self.name, inputs, self.axis)


@traces(Layout)
def layout(walk: Walker, node: fx.Node) -> None:
    """Add a layout."""
    given = walk.module_of(node)
    assert isinstance(given, Layout)
    walk.add(node, LaidOut(given, (walk.source(node),)))


@traces(Join)
def join(walk: Walker, node: fx.Node) -> None:
    """Add a join."""
    given = walk.module_of(node)
    assert isinstance(given, Join)
    names = tuple(walk.origin[part] for part in node.args if isinstance(part, fx.Node))
    walk.add(node, Joined(given.axis, names, meta_shape(node)[1:]))


@traces(Pick)
def pick(walk: Walker, node: fx.Node) -> None:
    """Refuse an output of single values."""
    what = f"an output of shape {meta_shape(node)[1:]} that is not a whole map in another order"
    raise walk.error(node, what, "return the map itself, and select its parts in the application")


@onnx_form("transpose")
def transpose_form(graph: OnnxGraph, op: Op) -> str:
    """Export as Transpose; values of four dimensions have ONNX's order there."""
    (x,) = graph.inputs(op)
    order = [int(axis) for axis in op.get_attr("order")]
    last, first = [0, 2, 3, 1], [0, 3, 1, 2]  # maps have their channels first in ONNX
    if len(order) == 4:
        order = [last[order[axis]] for axis in first]
    y = graph.node("Transpose", [x], perm=order)
    graph.keep_fix_point(x, y)
    return y
