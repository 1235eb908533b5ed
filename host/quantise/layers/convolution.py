"""Convolutions with their batch norms: conv2d, depthwise-conv2d and linear layers."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from tutelage.core.fixed_point import EXACT_FLOAT32, INT8_BOUND, MAX_SHIFT, Array, accumulator_bound
from tutelage.dpu.ops.fix import rounded_constant
from tutelage.dpu.ops.sliding_window import window_of
from tutelage.dpu.predict.operations import Operation
from tutelage.host.networks.norm import batch_norm
from tutelage.host.quantise import nonlinear
from tutelage.host.quantise.layers.base import (
    Layer,
    LayerThresholds,
    Move,
    Pair,
    pads,
    width_height,
)
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import Walker, shape_of, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.forward import Forward

log = logging.getLogger(__name__)

_LEAST_SCALE = 1e-8
"""Smaller factors of a norm count as this one, so that they can be divided by."""


@dataclass(frozen=True)
class Deployed:
    """One convolution's integers: weights int8 OIHW, bias int8 [O]."""

    weights: Tensor
    weights_fix_point: int
    bias: Tensor
    bias_fix_point: int


class Conv(Layer):
    """conv2d, depthwise-conv2d (groups = channels) and dense (kernel = map), with its norm.

    `weight` is OIHW and not yet scaled by the norm: `folded` gives what is deployed.
    """

    has_weights = True
    takes_activation = True

    def __init__(self, conv: nn.Conv2d, inputs: tuple[str, ...], shape: tuple[int, ...]) -> None:
        super().__init__(inputs, shape)
        self.weight = nn.Parameter(conv.weight.detach().clone())
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone())
        self.norm: nn.BatchNorm2d | None = None
        self.stride = cast("Pair", conv.stride)
        self.padding = cast("Pair", conv.padding)
        self.dilation = cast("Pair", conv.dilation)
        self.groups = conv.groups
        self.op_type = "depthwise-conv2d" if self.depthwise else "conv2d"

    @property
    def kernel(self) -> Pair:
        height, width = self.weight.shape[2:]
        return height, width

    @property
    def depthwise(self) -> bool:
        return self.groups > 1

    # -- arithmetic -----------------------------------------------------------------------

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def compute(self, forward: Forward, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        if forward.folded is None:
            return self._normalised(forward, x)
        weight, bias = forward.folded[self.name]
        weight = forward.rounded_weights(self.name, weight)
        if forward.exact and self._can_pass_float32(forward, weight, bias):
            return self(x.double(), weight.double(), bias.double())
        return self(x, weight, bias)

    def _normalised(self, forward: Forward, x: Tensor) -> Tensor:
        """With the batch's statistics: weights are rounded as folded, then unfolded again."""
        if self.norm is None:
            return self(x, forward.rounded_weights(self.name, self.weight), self.bias)
        with torch.no_grad():
            scale = _scale(self.norm)
            scale = torch.where(scale.abs() < _LEAST_SCALE, _LEAST_SCALE, scale).view(-1, 1, 1, 1)
        weight = forward.rounded_weights(self.name, self.weight * scale)
        return _normalise(self.norm, self(x, weight / scale, self.bias))

    def _can_pass_float32(self, forward: Forward, weight: Tensor, bias: Tensor) -> bool:
        """Whether a sum of int8 inputs times `weight` can have a part that float32 drops."""
        source = forward.points.activations[self.inputs[0]]
        largest = accumulator_bound(weight.detach(), bias.detach(), INT8_BOUND * 2.0**-source)
        return largest * 2.0 ** forward.points.accumulator(self) >= EXACT_FLOAT32

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight [O, I, kh, kw] and bias [O] with the norm's running statistics in them."""
        if self.norm is None:
            bias = self.weight.new_zeros(len(self.weight)) if self.bias is None else self.bias
            return self.weight, bias
        scale = _scale(self.norm)
        offset = 0.0 if self.bias is None else self.bias
        bias = self.norm.bias + (offset - _running_mean(self.norm)) * scale
        return self.weight * scale.view(-1, 1, 1, 1), bias

    @torch.no_grad()
    def set_folded(self, weight: Tensor, bias: Tensor) -> None:
        """Make `folded` give these; without a norm and a bias, the bias stays 0."""
        own = self.bias if self.norm is None else self.norm.bias
        if own is not None:
            own.add_(bias - self.folded()[1])
        if self.norm is not None:
            scale = _scale(self.norm).view(-1, 1, 1, 1)
            weight = torch.where(scale.abs() < _LEAST_SCALE, self.weight, weight / scale)
        self.weight.copy_(weight)

    # -- on the DPU -----------------------------------------------------------------------

    def can_be_negative(self, inputs: Iterable[bool]) -> bool:
        return True

    def illegal_shift(self, around: LayerThresholds) -> Move | None:
        """As `Layer.illegal_shift`; of weights and input the weights give way first."""
        (source,), weights, out = around.inputs, around.weights, around.output
        assert weights is not None
        shift = around.at(source) + around.at(weights) - around.at(out)
        reason = f"shift by {shift}"
        if shift < 0:
            return Move(out, around.at(out) + shift, reason)
        if shift <= MAX_SHIFT:
            return None
        lower = max(around.least[weights], around.at(weights) - (shift - MAX_SHIFT))
        if lower < around.at(weights):
            return Move(weights, lower, reason)
        return Move(source, around.at(source) - (shift - MAX_SHIFT), reason)

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        assert integers is not None
        convolution = model.depthwise_conv2d if self.depthwise else model.conv2d
        return convolution(
            self.name,
            inputs[0],
            _weights(integers, self.depthwise),
            integers.weights_fix_point,
            _numpy(integers.bias),
            integers.bias_fix_point,
            fix_point,
            stride=width_height(self.stride),
            pad=pads(self.padding),
            nonlinear=nonlinear.on_dpu(self.nonlinear, fix_point),
            dilation=width_height(self.dilation),
        )

    def operation(self, sources: tuple[int, ...]) -> Operation:
        outputs, depth = self.weight.shape[:2]
        parameters = self.weight.numel() + outputs  # the norm's offset is a bias
        return Operation(
            self.name, self.op_type, self.output_shape, sources, self.kernel, self.stride, depth,
            parameters,
        )  # fmt: skip


def _scale(norm: nn.BatchNorm2d) -> Tensor:
    """[O]: what a norm multiplies with by its running statistics."""
    assert norm.running_var is not None
    return norm.weight / torch.sqrt(norm.running_var + norm.eps)


def _running_mean(norm: nn.BatchNorm2d) -> Tensor:
    assert norm.running_mean is not None
    return norm.running_mean


def _normalise(norm: nn.BatchNorm2d, z: Tensor) -> Tensor:
    """The norm by the batch's own statistics; the running ones follow."""
    assert norm.running_var is not None
    momentum = 0.1 if norm.momentum is None else norm.momentum
    return batch_norm(
        z, _running_mean(norm), norm.running_var, norm.weight, norm.bias, momentum, norm.eps
    )


def _weights(integers: Deployed, depthwise: bool) -> Array:
    """OIHW as OHWI; of a depthwise convolution (channels, 1, H, W) as (1, H, W, channels)."""
    order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    return _numpy(integers.weights.permute(*order))


def _numpy(values: Tensor) -> Array:
    return np.ascontiguousarray(values.cpu().numpy())


# -- from PyTorch ---------------------------------------------------------------------------


@traces(nn.Conv2d)
def convolution(walk: Walker, node: fx.Node) -> None:
    """Add a convolution."""
    conv = walk.module_of(node)
    assert isinstance(conv, nn.Conv2d)
    depthwise = conv.groups == conv.in_channels == conv.out_channels
    if conv.groups != 1 and not depthwise:
        what = f"Conv2d with groups={conv.groups} on {conv.in_channels} channels"
        raise walk.error(node, what, "use groups=1 or one group per channel")
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        what = f"padding {conv.padding!r}, mode {conv.padding_mode!r}"
        raise walk.error(node, what, "pad with zeros and a number of pixels")
    walk.add(node, Conv(conv, (walk.source(node),), shape_of(node)))


@traces(nn.Linear)
def linear(walk: Walker, node: fx.Node) -> None:
    """Add a convolution over the whole map, whose weights are the linear layer's."""
    given = walk.module_of(node)
    assert isinstance(given, nn.Linear)
    source = walk.source(node)
    channels, height, width = walk.layers[source].shape
    if channels * height * width != given.in_features:
        raise walk.error(node, "Linear on a map", "flatten the map before it")
    has_bias = given.bias is not None
    conv = nn.Conv2d(channels, given.out_features, (height, width), bias=has_bias)
    with torch.no_grad():
        conv.weight.copy_(given.weight.view_as(conv.weight))
        if conv.bias is not None:
            conv.bias.copy_(given.bias)
    walk.add(node, Conv(conv, (source,), (given.out_features, 1, 1)))


@traces(nn.BatchNorm2d, derived=True)
def norm(walk: Walker, node: fx.Node) -> None:
    """Make a batch norm a part of the convolution before it, or of a new depthwise one."""
    given = walk.module_of(node)
    assert isinstance(given, nn.BatchNorm2d)
    if given.running_mean is None or given.weight is None:
        what = "BatchNorm2d without statistics or weights"
        raise walk.error(node, what, "keep track_running_stats and affine on")
    before = walk.layers[walk.source(node)]
    foldable = isinstance(before, Conv) and before.norm is None and before.nonlinear == "NONE"
    if foldable and walk.is_only_reader(node):
        walk.alias(node)
    else:
        log.warning(
            "%s: no convolution before this batch norm to fold it into; it becomes a 1x1 "
            "depthwise convolution, which costs time (conv-BN-ReLU order avoids it)",
            node.target,
        )
        before = add_identity(walk, node, given.num_features)
    assert isinstance(before, Conv)
    before.norm = nn.BatchNorm2d(given.num_features, given.eps, given.momentum)
    before.norm.load_state_dict(given.state_dict())


def add_identity(walk: Walker, node: fx.Node, groups: int) -> Conv:
    """Add a 1x1 convolution that gives its input back, for what needs one before it.

    Parameters
    ----------
    groups : 1, or the number of channels for a depthwise one
    """
    source = walk.source(node)
    channels = walk.layers[source].shape[0]
    conv = nn.Conv2d(channels, channels, 1, groups=groups, bias=False)
    nn.init.dirac_(conv.weight, groups)
    layer = Conv(conv, (source,), shape_of(node))
    walk.add(node, layer)
    return layer


# -- to ONNX --------------------------------------------------------------------------------


@onnx_form("conv2d", "depthwise-conv2d")
def convolution_form(graph: OnnxGraph, op: Op) -> str:
    """Conv, by dequantised weights and bias."""
    (x,) = graph.inputs(op)
    _, height, width, channels = op.get_input_tensor("input").dims
    window = window_of(op.get_attrs(), height, width)
    weights, weights_point = rounded_constant(op.get_graph(), op.get_input_op("weights"))
    order = (3, 0, 1, 2) if op.get_type() == "depthwise-conv2d" else (0, 3, 1, 2)
    weights = weights.transpose(order)
    inputs = [x, graph.parameter(weights, weights_point)]
    if op.get_input_num("bias"):
        bias, point = rounded_constant(op.get_graph(), op.get_input_op("bias"))
        inputs.append(graph.bias(bias, point, x, weights_point))
    return graph.node(
        "Conv", inputs, group=channels // weights.shape[1],
        kernel_shape=[window.kernel_h, window.kernel_w],
        strides=[window.stride_h, window.stride_w],
        dilations=[window.dilation_h, window.dilation_w],
        pads=[window.pad_top, window.pad_left, window.pad_bottom, window.pad_right],
    )  # fmt: skip
