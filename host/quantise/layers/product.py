"""Elementwise products, also of a map and one factor for each channel."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from tutelage.core.fixed_point import MAX_SHIFT
from tutelage.host.quantise.layers.base import Layer, LayerThresholds, Move
from tutelage.host.quantise.layers.broadcast import PRODUCTS, spread_operands
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import Walker, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.layers.convolution import Deployed


class Product(Layer):
    """Product of two maps of equal shape, or of a map (C, H, W) and factors (C, 1, 1)."""

    op_type = "mul"

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b

    def illegal_shift(self, around: LayerThresholds) -> Move | None:
        """See `Layer.illegal_shift`; the product's fix point is the sum of those of its factors."""
        out = around.output
        shift = sum(around.at(source) for source in around.inputs) - around.at(out)
        if shift < 0 and out not in around.inputs:  # otherwise lowering one lowers the other
            return Move(out, around.at(out) + shift, f"shift by {shift}")
        if shift > MAX_SHIFT:
            # A factor that is at its lowest fix point already is lowered last.
            finest = max(
                around.inputs, key=lambda i: (around.at(i) > around.least[i], around.at(i))
            )
            return Move(finest, around.at(finest) - (shift - MAX_SHIFT), f"shift by {shift}")
        return None

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        return model.multiply(self.name, inputs, fix_point)


_PRODUCTS = (torch.mul, torch.multiply, operator.mul, "mul", "multiply")
PRODUCTS.update(_PRODUCTS)


@traces(*_PRODUCTS)
def product(walk: Walker, node: fx.Node) -> None:
    """Add the product of two maps."""
    if not all(isinstance(factor, fx.Node) for factor in (*node.args, *node.kwargs.values())):
        advice = "fold a constant factor into the convolution before it"
        raise walk.error(node, "a product with a constant", advice)
    walk.add(node, Product(*spread_operands(walk, node, "a product", factors=True)))


@onnx_form("mul")
def product_form(graph: OnnxGraph, op: Op) -> str:
    """Export as Mul, which broadcasts as the DPU does."""
    return graph.node("Mul", graph.inputs(op))
