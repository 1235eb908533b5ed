"""Activations, which join the layer before them, or else a new 1x1 convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from tutelage.core.fixed_point import LEAKY_SLOPE, is_leaky_slope
from tutelage.dpu.ops.registry import op_type
from tutelage.host.quantise.layers.base import is_signed
from tutelage.host.quantise.layers.convolution import add_identity, scaling
from tutelage.host.quantise.layers.eltwise import Add
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import Walker, traces

if TYPE_CHECKING:
    from tutelage.dpu.xmodel.op import Op


@traces(nn.ReLU, F.relu, torch.relu, "relu")
def relu(walk: Walker, node: fx.Node) -> None:
    """Add a ReLU, unless its operand is never negative."""
    source = walk.source(node)
    if is_signed(walk.layers, source):
        _add_activation(walk, node, "RELU")
    else:
        walk.alias(node)


@traces(nn.ReLU6, F.relu6)
def relu6(walk: Walker, node: fx.Node) -> None:
    """Add a ReLU6."""
    _add_activation(walk, node, "RELU6")


@traces(nn.Hardtanh, F.hardtanh, torch.clamp, "clamp", "clip", torch.clip)
def hardtanh(walk: Walker, node: fx.Node) -> None:
    """Add a ReLU or a ReLU6 that is written as a clip."""
    if node.op == "call_module" or node.target is F.hardtanh:
        limits = walk.attribute(node, 1, "min_val", -1), walk.attribute(node, 2, "max_val", 1)
    else:
        limits = walk.value(node, 1, "min"), walk.value(node, 2, "max")
    kind = {(0, 6): "RELU6", (0, None): "RELU"}.get(limits)
    if kind is None:
        raise walk.error(node, f"a clip to {limits}", "clip to (0, 6), as ReLU6")
    _add_activation(walk, node, kind)


@traces(nn.LeakyReLU, F.leaky_relu)
def leaky_relu(walk: Walker, node: fx.Node) -> None:
    """Add a leaky ReLU: the DPU's own if the slope is the same, else a sum of two convolutions."""
    slope = float(walk.attribute(node, 1, "negative_slope", 0.01))
    if is_leaky_slope(slope):
        _add_activation(walk, node, "LEAKYRELU")
    else:
        what = f"the DPU's leaky ReLU has the slope {LEAKY_SLOPE}, not {slope:g}"
        walk.warn(node, what, _AS_A_SUM)
        _add_slopes(walk, node, torch.tensor([slope]))


@traces(nn.PReLU)
def prelu(walk: Walker, node: fx.Node) -> None:
    """Add a PReLU, as a sum of two convolutions."""
    given = walk.module_of(node)
    assert isinstance(given, nn.PReLU)
    walk.warn(node, "AMD's compiler never uses the DPU's instruction for PReLU", _AS_A_SUM)
    _add_slopes(walk, node, given.weight.float())


_AS_A_SUM = (
    "it becomes the sum of two 1x1 depthwise convolutions, which costs time "
    f"(ReLU, or LeakyReLU({LEAKY_SLOPE}) after a convolution, costs none)"
)


def _add_slopes(walk: Walker, node: fx.Node, slopes: Tensor) -> None:
    """Add ``a x + relu((1 - a) x)``, which is x where x is positive, and a x elsewhere.

    Parameters
    ----------
    slopes : a, at most 1: [1], or [C] with one for each channel
    """
    if not bool((slopes <= 1).all()):
        what = f"a slope of {float(slopes.detach().max()):g}"
        raise walk.error(node, what, "use slopes up to 1")
    source = walk.layers[walk.source(node)]
    slopes = slopes.expand(source.shape[0])
    name, parts = node.name, []
    for part, factors, nonlinear in (("slope", slopes, "NONE"), ("rest", 1 - slopes, "RELU")):
        layer = scaling(source, factors)
        layer.nonlinear = nonlinear
        parts.append(walk.insert(f"{name}/{part}", layer))
    walk.add(node, Add(tuple(parts), source.shape))


def _add_activation(walk: Walker, node: fx.Node, kind: str) -> None:
    """Join an activation to the layer before it, or to a 1x1 convolution added after that."""
    before = walk.layers[walk.source(node)]
    fits = before.takes_activation and before.nonlinear == "NONE" and walk.is_only_reader(node)
    if fits and kind in op_type(before.op_type).fuses:
        before.nonlinear = kind
        walk.alias(node)
        return
    what = f"the DPU cannot end this {before.op_type} with {kind}"
    if not walk.is_only_reader(node):
        what = f"the operand of this {kind} is read by other operations too"
    walk.warn(node, what, "a 1x1 convolution is added for it, which costs time")
    groups = before.shape[0] if kind in op_type("depthwise-conv2d").fuses else 1
    add_identity(walk, node, groups).nonlinear = kind


# -- to ONNX --------------------------------------------------------------------------------


@onnx_form("relu")
def relu_form(graph: OnnxGraph, op: Op) -> str:
    """Export as Relu."""
    return graph.node("Relu", graph.inputs(op))


@onnx_form("relu6")
def relu6_form(graph: OnnxGraph, op: Op) -> str:
    """Export as a Clip to 0 and 6."""
    return graph.node("Clip", [*graph.inputs(op), graph.scalar(0.0), graph.scalar(6.0)])


@onnx_form("leaky-relu")
def leaky_relu_form(graph: OnnxGraph, op: Op) -> str:
    """Export as LeakyRelu with the DPU's slope."""
    return graph.node("LeakyRelu", graph.inputs(op), alpha=LEAKY_SLOPE)
