"""Convolutions with their batch norms: conv2d, also with groups, and depthwise-conv2d."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from tutelage.core.fixed_point import EXACT_FLOAT32, INT8_BOUND, MAX_SHIFT, Array, accumulator_bound
from tutelage.dpu.ops.fix import rounded_constant
from tutelage.dpu.ops.limits import array_size_limit
from tutelage.dpu.ops.sliding_window import window_of
from tutelage.host.quantise import nonlinear
from tutelage.host.quantise.graph.copies import derived
from tutelage.host.quantise.graph.modules import PaddedConv2d
from tutelage.host.quantise.layers.base import (
    Layer,
    LayerThresholds,
    Move,
    Pads,
    Pair,
    pads,
    width_height,
)
from tutelage.host.quantise.layers.pad import ZeroPad
from tutelage.host.quantise.onnx_form import OnnxGraph, onnx_form
from tutelage.host.quantise.walker import Walker, shape_of, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.forward import Forward

LEAST_SCALE = 1e-8
"""Factors of a norm below this count as this, to avoid divisions by 0."""


@dataclass(frozen=True)
class Deployed:
    """The integers of a convolution: weights int8 OIHW, bias int8 [O], and their fix points."""

    weights: Tensor
    weights_fix_point: int
    bias: Tensor
    bias_fix_point: int


class Conv(Layer):
    """A convolution with any number of groups, with its norm; also a dense layer (kernel = map).

    Attributes
    ----------
    weight : OIHW, not scaled by the norm; `folded` returns what is deployed
    bias : [O]; None without
    norm : the batch norm after it; None without
    stride, dilation : (height, width)
    pads : (left, right, top, bottom)
    groups : number of groups
    depthwise : whether it is a depthwise convolution
    """

    has_weights = True
    takes_activation = True

    def __init__(self, conv: AnyConv, inputs: tuple[str, ...], shape: tuple[int, ...]) -> None:
        super().__init__(inputs, shape)
        self.weight = derived(self.outputs_first(conv), conv.weight)
        self.bias = None if conv.bias is None else derived(conv.bias, conv.bias)
        self.norm: AnyNorm | None = None
        self.stride = cast("Pair", conv.stride)
        self.pads: Pads = getattr(conv, "pads", None) or pads(cast("Pair", conv.padding))
        self.dilation = cast("Pair", conv.dilation)
        self.groups = conv.groups
        self.depthwise = conv.groups == conv.in_channels == conv.out_channels > 1
        self.op_type = self.op_types[self.depthwise]

    op_types = "conv2d", "depthwise-conv2d"

    @staticmethod
    def outputs_first(conv: Any) -> Tensor:
        """Return a copy of the weights as OIHW, where I is the number of inputs of one group."""
        copied: Tensor = conv.weight.detach().clone()
        return copied

    @property
    def kernel(self) -> Pair:
        height, width = self.weight.shape[2:]
        return height, width

    @property
    def padding(self) -> Pair | None:
        """(height, width) of the padding; None if opposite sides differ."""
        left, right, top, bottom = self.pads
        return (top, left) if (left, top) == (right, bottom) else None

    # -- arithmetic -----------------------------------------------------------------------

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        if padding is None:
            x, padding = F.pad(x, self.pads), (0, 0)
        return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def compute(self, forward: Forward, *inputs: Tensor) -> Tensor:
        """See `Layer.compute`; a norm with the batch's statistics is applied by `Forward`."""
        (x,) = inputs
        weight, bias = forward.parameters[self.name]
        if forward.exact and bias is not None and self._can_pass_float32(forward, weight, bias):
            return self(x.double(), weight.double(), bias.double())
        return self(x, weight, bias)

    def _can_pass_float32(self, forward: Forward, weight: Tensor, bias: Tensor) -> bool:
        """Return whether a sum of int8 inputs times weights may not be exact in float32."""
        source = forward.points.activations[self.inputs[0]]
        largest = accumulator_bound(weight.detach(), bias.detach(), INT8_BOUND * 2.0**-source)
        return largest * 2.0 ** forward.points.accumulator(self) >= EXACT_FLOAT32

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight [O, I, kh, kw] and bias [O], folded with the norm's running statistics."""
        if self.norm is None:
            bias = self.weight.new_zeros(len(self.weight)) if self.bias is None else self.bias
            return self.weight, bias
        scale = _scale(self.norm)
        offset = 0.0 if self.bias is None else self.bias
        bias = (offset - _running_mean(self.norm)) * scale
        if self.norm.bias is not None:
            bias = bias + self.norm.bias
        return self.weight * scale.view(-1, 1, 1, 1), bias

    @torch.no_grad()
    def set_folded(self, weight: Tensor, bias: Tensor) -> None:
        """Make `folded` return these; the bias stays 0 if there is neither a norm nor a bias."""
        own = self.bias if self.norm is None else self.norm.bias
        if own is not None:
            own.add_(bias - self.folded()[1])
        if self.norm is not None:
            scale = _scale(self.norm).view(-1, 1, 1, 1)
            weight = torch.where(scale.abs() < LEAST_SCALE, self.weight, weight / scale)
        self.weight.copy_(weight)

    # -- on the DPU -----------------------------------------------------------------------

    def can_be_negative(self, inputs: Iterable[bool]) -> bool:
        return True

    def illegal_shift(self, around: LayerThresholds) -> Move | None:
        """See `Layer.illegal_shift`; weights are moved before the input."""
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
        return model.conv2d(
            self.name,
            inputs[0],
            self.arranged(integers.weights),
            integers.weights_fix_point,
            numpy_of(integers.bias),
            integers.bias_fix_point,
            fix_point,
            stride=width_height(self.stride),
            pad=self.pads,
            nonlinear=nonlinear.on_dpu(self.nonlinear, fix_point),
            dilation=width_height(self.dilation),
            kind=self.op_type,
        )

    def arranged(self, weights: Tensor) -> Array:
        """Convert OIHW to OHWI, or depthwise weights (channels, 1, H, W) to (1, H, W, channels)."""
        return numpy_of(weights.permute(*((1, 2, 3, 0) if self.depthwise else (0, 2, 3, 1))))


AnyConv = nn.Conv2d | nn.ConvTranspose2d
AnyNorm = nn.BatchNorm1d | nn.BatchNorm2d


def _scale(norm: AnyNorm) -> Tensor:
    """Return the factors [O] of a norm with its running statistics."""
    assert norm.running_var is not None
    deviation = torch.sqrt(norm.running_var + norm.eps)
    return (1.0 if norm.weight is None else norm.weight) / deviation


def _running_mean(norm: AnyNorm) -> Tensor:
    assert norm.running_mean is not None
    return norm.running_mean


def numpy_of(values: Tensor) -> Array:
    """Return a tensor as a contiguous numpy array."""
    return np.ascontiguousarray(values.cpu().numpy())


# -- from PyTorch ---------------------------------------------------------------------------


@traces(nn.Conv2d, PaddedConv2d)
def convolution(walk: Walker, node: fx.Node) -> None:
    """Add a convolution, and a layer of padding before it if it is padded beyond its kernel."""
    conv = walk.module_of(node)
    assert isinstance(conv, nn.Conv2d)
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        what = f"padding {conv.padding!r}, mode {conv.padding_mode!r}"
        raise walk.error(node, what, "pad with zeros, by numbers of pixels")
    source = walk.source(node)
    layer = Conv(conv, (source,), shape_of(node))
    if min(layer.pads) < 0:
        raise walk.error(node, f"padding {layer.pads}", "pad by 0 or more pixels")
    down, across = ((k - 1) * d for k, d in zip(layer.kernel, layer.dilation, strict=True))
    left, right, top, bottom = layer.pads
    if max(left, right) > across or max(top, bottom) > down:
        channels, height, width = walk.layers[source].shape
        padded = (channels, height + top + bottom, width + left + right)
        border = ZeroPad((source,), padded, layer.pads)
        layer.inputs, layer.pads = (walk.insert(f"{node.name}/pad", border),), (0, 0, 0, 0)
    limit = array_size_limit(width_height(layer.kernel), width_height(layer.stride))
    if limit and not layer.depthwise:
        advice = "use several smaller convolutions, or a depthwise one"
        walk.warn(node, f"{limit}: the CPU would compute this convolution", advice)
    share_parameters(walk, conv, layer)
    walk.add(node, layer)


def share_parameters(
    walk: Walker, module: nn.Module, layer: Conv, names: Sequence[str] = ("weight", "bias")
) -> None:
    """Share a layer's parameters with a layer already made from the same ones.

    Graph passes copy modules (for example to add padding to one call of a convolution), but not
    parameters.
    """
    for name in names:
        given = getattr(module, name)
        if given is not None:
            made = getattr(layer, name)
            key = made_of(given, type(layer), made.shape)
            setattr(layer, name, walk.made.setdefault(key, made))


def made_of(given: Tensor, cls: type[Conv], shape: torch.Size) -> Any:
    """Return a key for the parameter that layers of a class and a shape make from `given`."""
    return id(given), cls.outputs_first, shape


def add_identity(walk: Walker, node: fx.Node, groups: int) -> Conv:
    """Add a 1x1 convolution that returns its input, for operations that need one before them.

    Parameters
    ----------
    groups : 1, or the number of channels for a depthwise convolution
    """
    source = walk.source(node)
    shape = walk.layers[source].shape
    conv = nn.Conv2d(shape[0], shape[0], 1, groups=groups, bias=False)
    nn.init.dirac_(conv.requires_grad_(False).weight, groups)
    layer = Conv(conv, (source,), shape)
    walk.add(node, layer)
    return layer


def scaling(source: Layer, factors: Tensor) -> Conv:
    """Return a 1x1 depthwise convolution that multiplies each channel by a factor.

    Parameters
    ----------
    factors : [C], one for each channel of `source`
    """
    channels = source.shape[0]
    conv = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
    with torch.no_grad():
        conv.weight.copy_(factors.view(-1, 1, 1, 1))
    conv.requires_grad_(factors.requires_grad)
    return Conv(conv, (source.name,), source.shape)


# -- to ONNX --------------------------------------------------------------------------------


@onnx_form("conv2d", "depthwise-conv2d")
def convolution_form(graph: OnnxGraph, op: Op) -> str:
    """Export as Conv, with dequantised weights and bias."""
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
