"""Elementwise sums and differences."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from tutelage.core.fixed_point import GUARD_BITS, MAX_ALIGNMENT, sum_is_exact
from tutelage.host.quantise.layers.base import Layer, LayerThresholds, Move
from tutelage.host.quantise.layers.broadcast import spread_operands
from tutelage.host.quantise.layers.convolution import scaling
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import Walker, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.layers.convolution import Deployed


class Add(Layer):
    """Elementwise sum of equal shapes."""

    op_type = "add"
    takes_activation = True

    def forward(self, *xs: Tensor) -> Tensor:
        total = xs[0]
        for x in xs[1:]:
            total = total + x
        return total

    def illegal_shift(self, around: LayerThresholds) -> Move | None:
        """See `Layer.illegal_shift`.

        The DPU drops bits of inputs that are much finer than the coarsest one (`sum_is_exact`). If
        its sum would differ from that of AMD's quantiser, these inputs get a coarser fix point.
        """
        points = [around.at(source) for source in around.inputs]
        finest, coarsest = max(around.inputs, key=around.at), min(points)
        if not sum_is_exact(points, around.at(around.output)):
            return Move(finest, coarsest + GUARD_BITS, "lose bits of a sum's input")
        shift = around.at(finest) - coarsest
        if shift > MAX_ALIGNMENT:
            return Move(finest, coarsest + MAX_ALIGNMENT, f"shift an input by {shift}")
        return around.shift(finest, most=MAX_ALIGNMENT)

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        return model.add(self.name, inputs, fix_point, self.nonlinear)


@traces(torch.add, operator.add, "add")
def add(walk: Walker, node: fx.Node) -> None:
    """Add a sum of two maps, of which one may be broadcast."""
    if walk.value(node, 2, "alpha", 1) != 1:
        raise walk.error(node, "an addition with alpha", "scale the weights before it")
    walk.add(node, Add(*spread_operands(walk, node, "an addition")))


@traces(torch.sub, torch.subtract, operator.sub, "sub", "subtract")
def subtract(walk: Walker, node: fx.Node) -> None:
    """Add the sum of a map and a negated one, by a 1x1 depthwise convolution with weights -1."""
    if walk.value(node, 2, "alpha", 1) != 1:
        raise walk.error(node, "a subtraction with alpha", "scale the weights before it")
    (first, second), shape = spread_operands(walk, node, "a subtraction")
    source = walk.layers[second]
    negated = walk.insert(f"{node.name}/negated", scaling(source, -torch.ones(source.shape[0])))
    walk.add(node, Add((first, negated), shape))


@onnx_form("add")
def add_form(graph: OnnxGraph, op: Op) -> str:
    """Export as Add."""
    return graph.node("Add", graph.inputs(op))
