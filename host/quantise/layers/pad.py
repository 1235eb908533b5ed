"""Padding with zeros that is not part of the operation after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from torch import Tensor, fx, nn

from tutelage.host.quantise.layers.base import Layer, Pads
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import Walker, shape_of, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.layers.convolution import Deployed


class ZeroPad(Layer):
    """A map with `pads` pixels of zeros around it."""

    op_type = "pad"
    ties_fix_points = True

    def __init__(self, inputs: tuple[str, ...], shape: tuple[int, ...], pads: Pads) -> None:
        super().__init__(inputs, shape)
        self.pads = pads

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pads)

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        left, right, top, bottom = self.pads
        attrs = {
            "paddings": [0, 0, top, bottom, left, right, 0, 0],
            "mode": "CONSTANT",
            "constant_values": [0.0] * 8,
        }
        return model.move(self.name, "pad", inputs[0], attrs)


@traces(nn.ZeroPad2d, nn.ConstantPad2d, F.pad)
def zero_pad(walk: Walker, node: fx.Node) -> None:
    """Add padding with zeros, unless it is empty."""
    given = walk.attribute(node, 1, "padding" if node.op == "call_module" else "pad")
    mode, value = walk.value(node, 2, "mode", "constant"), walk.attribute(node, 3, "value", 0)
    sides = tuple(given) if isinstance(given, tuple | list) else (given,)
    if not all(isinstance(side, int) for side in sides) or len(sides) % 2 or len(sides) > 8:
        raise walk.error(node, f"padding by {given}", "pad by constant numbers of pixels")
    if (node.op != "call_module" and mode != "constant") or value not in (0, None):
        raise walk.error(node, f"padding by {mode} {value}", "pad with zeros")
    pixels = (*sides[:4], *[0] * (4 - len(sides)))
    if any(sides[4:]) or min(pixels) < 0:
        raise walk.error(node, f"padding {given}", "pad rows and columns, by 0 or more pixels")
    if not any(pixels):
        walk.alias(node)
        return
    left, right, top, bottom = pixels
    walk.add(node, ZeroPad((walk.source(node),), shape_of(node), (left, right, top, bottom)))


@onnx_form("pad")
def pad_form(graph: OnnxGraph, op: Op) -> str:
    """Export as Pad, which keeps the fix point of its input."""
    (x,) = graph.inputs(op)
    _, _, top, bottom, left, right, _, _ = op.get_attr("paddings")
    pads = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
    y = graph.node("Pad", [x, graph.constant(pads)])
    graph.keep_fix_point(x, y)
    return y
