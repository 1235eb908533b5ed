"""Maps whose pixels are repeated a whole number of times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from torch import Tensor, fx, nn

from tutelage.dpu.ops.resize import whole_factors
from tutelage.host.quantise.layers.base import Layer, Pair, width_height
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import Walker, shape_of, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.layers.convolution import Deployed


class Upsample(Layer):
    """Each pixel `factors[0]` times down and `factors[1]` times across."""

    op_type = "upsample"
    ties_fix_points = True

    def __init__(self, inputs: tuple[str, ...], shape: tuple[int, ...], factors: Pair) -> None:
        super().__init__(inputs, shape)
        self.factors = factors

    def forward(self, x: Tensor) -> Tensor:
        down, across = self.factors
        return x.repeat_interleave(down, 2).repeat_interleave(across, 3)

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        scale = [float(factor) for factor in width_height(self.factors)]
        return model.move(self.name, "upsample", inputs[0], {"scale": scale, "mode": "NEAREST"})


@traces(nn.Upsample, nn.UpsamplingNearest2d, F.interpolate)
def upsample(walk: Walker, node: fx.Node) -> None:
    """Add an upsampling."""
    source = walk.source(node)
    before, after = walk.layers[source].shape[1:], shape_of(node)[1:]
    scale = walk.attribute(node, 2, "scale_factor")
    scales = scale if isinstance(scale, tuple | list) else (scale, scale)
    factors = after[0] // before[0], after[1] // before[1]
    whole = tuple(n * f for n, f in zip(before, factors, strict=True)) == after
    if walk.attribute(node, 3, "mode", "nearest") not in ("nearest", "nearest-exact"):
        raise walk.error(node, "an upsampling that interpolates", 'use mode="nearest"')
    if not whole or scales not in ((None, None), factors):
        raise walk.error(node, f"an upsampling by {scale}", "use a whole number")
    walk.add(node, Upsample((source,), shape_of(node), factors))


@onnx_form("upsample")
def upsample_form(graph: OnnxGraph, op: Op) -> str:
    """Resize, by the pixel above and to the left."""
    factors = whole_factors(op)
    assert factors is not None
    (x,) = graph.inputs(op)
    scales = graph.constant(np.array([1, 1, *factors], np.float32))
    y = graph.node(
        "Resize", [x, "", scales], mode="nearest", nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )  # fmt: skip
    graph.keep_fix_point(x, y)
    return y
