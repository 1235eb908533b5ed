"""Upsampling: by repeated pixels on the DPU, by interpolation on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from tutelage.core.fixed_point import Array
from tutelage.dpu.compiler.builder import resized
from tutelage.dpu.ops.resize import mixed_pixels, sampled_places, whole_factors
from tutelage.host.quantise.layers.base import Layer, Pair, width_height
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import Walker, shape_of, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.layers.convolution import Deployed


class Upsample(Layer):
    """Repeats each pixel `factors[0]` times vertically and `factors[1]` times horizontally."""

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


class Nearest(Layer):
    """Nearest-neighbour resizing by a factor that is not an integer, on the CPU.

    It takes the pixel above and to the left, as the .xmodel's op and PyTorch do.
    """

    op_type = "resize"
    ties_fix_points = True

    def __init__(
        self, inputs: tuple[str, ...], shape: tuple[int, ...], before: tuple[int, ...]
    ) -> None:
        super().__init__(inputs, shape)
        self.rows, self.columns = (
            torch.from_numpy(_nearest_pixels(size, out))
            for size, out in zip(before, shape[1:], strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.rows.to(x.device), self.columns.to(x.device)
        return x.index_select(2, rows).index_select(3, columns)

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        size = width_height((self.shape[1], self.shape[2]))
        attrs = {**resized(inputs[0], size), "mode": "NEAREST"}
        return model.move(self.name, "resize", inputs[0], attrs)


def _nearest_pixels(size: int, out: int) -> Array:
    """Return for each of `out` pixels the index of the one of `size` that it takes, int64."""
    places = np.floor(sampled_places(size, out, False, False))
    return np.asarray(places.clip(max=size - 1).astype(np.int64))


class Interpolate(Layer):
    """Bilinear interpolation on the CPU, with the float32 operations of the .xmodel's op."""

    op_type = "resize"

    def __init__(
        self, inputs: tuple[str, ...], shape: tuple[int, ...], before: tuple[int, ...],
        align_corners: bool,
    ) -> None:  # fmt: skip
        super().__init__(inputs, shape)
        self.align_corners = align_corners
        self.mixed = [
            tuple(map(torch.from_numpy, mixed_pixels(
                sampled_places(size, out, align_corners, not align_corners), size)))
            for size, out in zip(before, shape[1:], strict=True)
        ]  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        for axis in (3, 2):  # columns first, like the op
            low, high, share = (part.to(x.device) for part in self.mixed[axis - 2])
            below = x.index_select(axis, low)
            share = share.to(x.dtype).view([-1 if place == axis else 1 for place in range(4)])
            x = below + (x.index_select(axis, high) - below) * share
        return x

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        size = width_height((self.shape[1], self.shape[2]))
        return model.interpolate(self.name, inputs[0], size, fix_point, self.align_corners)


_ON_THE_CPU = "the CPU computes it, which costs time"


@traces(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, F.interpolate)
def upsample(walk: Walker, node: fx.Node) -> None:
    """Add an upsampling, on the DPU if it repeats pixels, else on the CPU."""
    source = walk.source(node)
    before, after = walk.layers[source].shape[1:], shape_of(node)[1:]
    mode = walk.attribute(node, 3, "mode", "nearest")
    _check_scale(walk, node, before, after)
    if mode == "bilinear":
        advice = f"{_ON_THE_CPU} (replace: bilinear=transposed or bilinear=nearest avoids it)"
        walk.warn(node, "the DPU has no bilinear interpolation", advice)
        ends = bool(walk.attribute(node, 4, "align_corners"))
        walk.add(node, Interpolate((source,), shape_of(node), before, ends))
        return
    factors = after[0] // before[0], after[1] // before[1]
    whole = tuple(n * f for n, f in zip(before, factors, strict=True)) == after
    if mode not in ("nearest", "nearest-exact") or (mode == "nearest-exact" and not whole):
        what = f"an upsampling by {mode}"
        raise walk.error(node, what, 'use mode="nearest", or "bilinear" on the CPU')
    if whole:
        walk.add(node, Upsample((source,), shape_of(node), factors))
        return
    walk.warn(node, f"the DPU does not resize {before} to {after}", _ON_THE_CPU)
    walk.add(node, Nearest((source,), shape_of(node), before))


def _check_scale(
    walk: Walker, node: fx.Node, before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    """Refuse a factor that is not the ratio of the sizes, since PyTorch samples with the factor."""
    scale = walk.attribute(node, 2, "scale_factor")
    scales = scale if isinstance(scale, tuple | list) else (scale, scale)
    if walk.attribute(node, 5, "recompute_scale_factor") or scale is None:
        return
    if any(factor * old != new for factor, old, new in zip(scales, before, after, strict=True)):
        advice = "give size instead, or set recompute_scale_factor=True"
        raise walk.error(node, f"an upsampling of {before} by {scale}", advice)


@onnx_form("upsample")
def upsample_form(graph: OnnxGraph, op: Op) -> str:
    """Export as Resize to the pixel above and to the left."""
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


@onnx_form("resize")
def resize_form(graph: OnnxGraph, op: Op) -> str:
    """Export as Resize if it interpolates, else as Gather of rows and columns."""
    (x,) = graph.inputs(op)
    before, after = op.get_input_tensor("input").dims, op.get_output_tensor().dims
    if str(op.get_attr("mode")) != "BILINEAR":
        y = x
        for axis in (1, 2):
            taken = _nearest_pixels(before[axis], after[axis])
            y = graph.node("Gather", [y, graph.constant(taken)], axis=axis + 1)
        graph.keep_fix_point(x, y)
        return y
    width, height = op.get_attr("scale")
    scales = graph.constant(np.array([1, 1, height, width], np.float32))
    way = "align_corners" if op.get_attr("align_corners") else "half_pixel"
    return graph.node("Resize", [x, "", scales], mode="linear", coordinate_transformation_mode=way)
