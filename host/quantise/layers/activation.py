"""Activations, which become a part of the layer before them or of a 1x1 convolution behind it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import fx, nn

from tutelage.core.fixed_point import LEAKY_SLOPE, is_leaky_slope
from tutelage.dpu.ops.registry import op_type
from tutelage.host.quantise.layers.base import is_signed
from tutelage.host.quantise.layers.convolution import add_identity
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import Walker, traces

if TYPE_CHECKING:
    from tutelage.dpu.xmodel.op import Op

log = logging.getLogger(__name__)


@traces(nn.ReLU, F.relu, torch.relu, "relu", "relu_")
def relu(walk: Walker, node: fx.Node) -> None:
    """Add a ReLU; none behind what is not negative."""
    source = walk.source(node)
    if is_signed(walk.layers, source):
        _add_activation(walk, node, "RELU")
    else:
        walk.alias(node)


@traces(nn.ReLU6, F.relu6)
def relu6(walk: Walker, node: fx.Node) -> None:
    """Add a ReLU6."""
    _add_activation(walk, node, "RELU6")


@traces(nn.Hardtanh, F.hardtanh)
def hardtanh(walk: Walker, node: fx.Node) -> None:
    """Add a ReLU6 under its other name."""
    limits = walk.attribute(node, 1, "min_val", -1), walk.attribute(node, 2, "max_val", 1)
    if limits != (0, 6):
        raise walk.error(node, f"a clip to {limits}", "clip to (0, 6): ReLU6")
    _add_activation(walk, node, "RELU6")


@traces(nn.LeakyReLU, F.leaky_relu)
def leaky_relu(walk: Walker, node: fx.Node) -> None:
    """Add a leaky ReLU with the DPU's slope."""
    slope = walk.attribute(node, 1, "negative_slope", 0.01)
    if not is_leaky_slope(slope):
        raise walk.error(node, f"LeakyReLU with slope {slope}", f"use {LEAKY_SLOPE} (26/256)")
    _add_activation(walk, node, "LEAKYRELU")


def _add_activation(walk: Walker, node: fx.Node, kind: str) -> None:
    before = walk.layers[walk.source(node)]
    fits = before.takes_activation and before.nonlinear == "NONE"
    if not fits or not walk.is_only_reader(node):
        advice = "put it directly behind a convolution or an addition that nothing else reads"
        raise walk.error(node, f"{kind} behind {type(before).__name__}", advice)
    if kind in op_type(before.op_type).fuses:
        before.nonlinear = kind
        walk.alias(node)
        return
    log.warning(
        "%s: the DPU has no %s at the end of this %s; it is given to a 1x1 convolution behind "
        "it, which costs time",
        node.name, kind, before.op_type,
    )  # fmt: skip
    groups = before.shape[0] if kind in op_type("depthwise-conv2d").fuses else 1
    add_identity(walk, node, groups).nonlinear = kind


# -- to ONNX --------------------------------------------------------------------------------


@onnx_form("relu")
def relu_form(graph: OnnxGraph, op: Op) -> str:
    """Relu."""
    return graph.node("Relu", graph.inputs(op))


@onnx_form("relu6")
def relu6_form(graph: OnnxGraph, op: Op) -> str:
    """Clip to 0 and 6."""
    return graph.node("Clip", [*graph.inputs(op), graph.scalar(0.0), graph.scalar(6.0)])


@onnx_form("leaky-relu")
def leaky_relu_form(graph: OnnxGraph, op: Op) -> str:
    """LeakyRelu with the DPU's slope."""
    return graph.node("LeakyRelu", graph.inputs(op), alpha=LEAKY_SLOPE)
