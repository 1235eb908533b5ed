"""Hard sigmoid, and hard swish, the product of a value and its hard sigmoid."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, fx, nn

from tutelage.core.fixed_point import SIXTH_NUMERATOR, SIXTH_SHIFT
from tutelage.dpu.ops.int8 import HARD_SIGMOID_FIX_POINT
from tutelage.host.quantise.layers.base import Layer, LayerThresholds, Move
from tutelage.host.quantise.layers.product import Product
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import Walker, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.layers.convolution import Deployed


class HardSigmoid(Layer):
    """``clip(x + 3, 0, 6) * 2731 / 2**14``, with the DPU's factor for 1/6.

    The factor exceeds 1/6 slightly, but the result is limited by int8 at fix point 7.
    """

    op_type = "hard-sigmoid"
    needs_int8 = True

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:  # exact: up to 8 + 3 bits, times the 12 bits of the factor
            x = x.double()
        return F.hardtanh(x + 3, 0.0, 6.0) * (SIXTH_NUMERATOR / 2**SIXTH_SHIFT)

    def can_be_negative(self, inputs: Iterable[bool]) -> bool:
        return False

    def least_fix_point(self) -> int | None:
        return HARD_SIGMOID_FIX_POINT

    def illegal_shift(self, around: LayerThresholds) -> Move | None:
        """See `Layer.illegal_shift`; ``14 + p_in - p_out`` must not be negative."""
        (source,), out = around.inputs, around.output
        if around.at(source) - around.at(out) + SIXTH_SHIFT >= 0 or out == source:
            return None
        lower = around.at(source) + SIXTH_SHIFT
        return Move(out, lower, f"gain {around.at(out) - around.at(source)} bits")

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        return model.hard_sigmoid(self.name, inputs[0], fix_point)


@traces(nn.Hardsigmoid, F.hardsigmoid)
def hard_sigmoid(walk: Walker, node: fx.Node) -> None:
    """Add a hard sigmoid."""
    source = walk.layers[walk.source(node)]
    walk.add(node, HardSigmoid((source.name,), source.shape))


@traces(nn.Hardswish, F.hardswish)
def hard_swish(walk: Walker, node: fx.Node) -> None:
    """Add a hard sigmoid and a product of its operand with it, as AMD's quantiser does."""
    source = walk.layers[walk.source(node)]
    gate = walk.insert(f"{node.name}/gate", HardSigmoid((source.name,), source.shape))
    walk.add(node, Product((source.name, gate), source.shape))


@onnx_form("hard-sigmoid")
def hard_sigmoid_form(graph: OnnxGraph, op: Op) -> str:
    """Export as Add 3, Clip to 0 and 6, and Mul with the DPU's factor."""
    (x,) = graph.inputs(op)
    (scale,) = op.get_fanout_ops()
    three = graph.node("Add", [x, graph.scalar(3.0)])
    clipped = graph.node("Clip", [three, graph.scalar(0.0), graph.scalar(6.0)])
    y = graph.node("Mul", [clipped, graph.scalar(SIXTH_NUMERATOR / 2**SIXTH_SHIFT)])
    graph.set_value(scale, y)
    return y
