"""The layers a quantised student is made of: what the DPU runs, nothing else.

Each layer knows its own float arithmetic and where its inputs come from. When
and how values are rounded is the student's business (student.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.fixed_point import EXACT_FLOAT32, LEAKY_SLOPE, average_bound, pool_reciprocal
from tutelage.host.networks.norm import batch_norm

Pair = tuple[int, int]  # (height, width), as in torch; the .xmodel has [width, height]

_LEAST_SCALE = 1e-8
"""Smaller factors of a norm count as this one, so that they can be divided by."""


class Layer(nn.Module):
    """A node of the graph.

    Attributes
    ----------
    inputs : names of the layers whose outputs it takes
    shape : its output's (C, H, W)
    nonlinear : NONE, RELU, RELU6 or LEAKYRELU, applied to its result
    """

    def __init__(self, inputs: tuple[str, ...], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.inputs = inputs
        self.shape = shape
        self.nonlinear = "NONE"


class Input(Layer):
    """The images, float [N, C, H, W]."""


class Conv(Layer):
    """conv2d, depthwise-conv2d (groups = channels) and dense (kernel = map), with its norm.

    `weight` is OIHW and not yet scaled by the norm: `folded` gives what is deployed.
    """

    def __init__(self, conv: nn.Conv2d, inputs: tuple[str, ...], shape: tuple[int, ...]) -> None:
        super().__init__(inputs, shape)
        self.weight = nn.Parameter(conv.weight.detach().clone())
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone())
        self.norm: nn.BatchNorm2d | None = None
        self.stride: Pair = _pair(conv.stride)
        self.padding: Pair = _pair(conv.padding)
        self.dilation: Pair = _pair(conv.dilation)
        self.groups = conv.groups

    @property
    def kernel(self) -> Pair:
        height, width = self.weight.shape[2:]
        return height, width

    @property
    def depthwise(self) -> bool:
        return self.groups > 1

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight [O, I, kh, kw] and bias [O] with the norm's running statistics in them."""
        if self.norm is None:
            bias = self.weight.new_zeros(len(self.weight)) if self.bias is None else self.bias
            return self.weight, bias
        scale = self.norm.weight / torch.sqrt(running_var(self.norm) + self.norm.eps)
        offset = 0.0 if self.bias is None else self.bias
        bias = self.norm.bias + (offset - running_mean(self.norm)) * scale
        return self.weight * scale.view(-1, 1, 1, 1), bias

    def norm_scale(self) -> Tensor:
        """[O]: what the norm multiplies with by its running statistics; never 0, no gradient."""
        assert self.norm is not None
        with torch.no_grad():
            scale = self.norm.weight / torch.sqrt(running_var(self.norm) + self.norm.eps)
            return torch.where(scale.abs() < _LEAST_SCALE, _LEAST_SCALE, scale)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def normalise(self, z: Tensor) -> Tensor:
        """The norm by the batch's own statistics; the running ones follow."""
        norm = self.norm
        assert norm is not None
        momentum = 0.1 if norm.momentum is None else norm.momentum
        return batch_norm(
            z, running_mean(norm), running_var(norm), norm.weight, norm.bias, momentum, norm.eps
        )


class MaxPool(Layer):
    def __init__(
        self, inputs: tuple[str, ...], shape: tuple[int, ...], kernel: Pair, stride: Pair,
        pad: Pair, ceil: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(inputs, shape)
        self.kernel, self.stride, self.padding, self.ceil = kernel, stride, pad, ceil

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel, self.stride, self.padding, ceil_mode=self.ceil)


class AvgPool(Layer):
    """Sum of the window, padding included, times the DPU's fixed-point reciprocal of its area."""

    def __init__(
        self, inputs: tuple[str, ...], shape: tuple[int, ...], kernel: Pair, stride: Pair,
        pad: Pair = (0, 0),
    ) -> None:  # fmt: skip
        super().__init__(inputs, shape)
        self.kernel, self.stride, self.padding = kernel, stride, pad
        numerator, self.shift = pool_reciprocal(kernel[1], kernel[0])
        self.factor = numerator / 2**self.shift
        self.exact = average_bound(kernel[1], kernel[0]) < EXACT_FLOAT32

    def forward(self, x: Tensor) -> Tensor:
        factor = self.factor
        if not self.training and not self.exact:
            x = x.double()
        if self.kernel == tuple(x.shape[2:]) and self.padding == (0, 0):
            return x.sum((2, 3), keepdim=True) * factor
        total = F.avg_pool2d(x, self.kernel, self.stride, self.padding, divisor_override=1)
        return total * factor


class Concat(Layer):
    """Along the channels."""

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.cat(xs, 1)


class Add(Layer):
    """Elementwise sum of equal shapes."""

    def forward(self, *xs: Tensor) -> Tensor:
        total = xs[0]
        for x in xs[1:]:
            total = total + x
        return total


class Reshape(Layer):
    """[N, C, 1, 1] -> [N, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def apply_nonlinear(nonlinear: str, x: Tensor) -> Tensor:
    """One of NONE, RELU, RELU6, LEAKYRELU, of any shape."""
    if nonlinear == "RELU":
        return F.relu(x)
    if nonlinear == "RELU6":
        return F.hardtanh(x, 0.0, 6.0)
    if nonlinear == "LEAKYRELU":
        return F.leaky_relu(x, LEAKY_SLOPE)
    return x


def running_mean(norm: nn.BatchNorm2d) -> Tensor:
    assert norm.running_mean is not None
    return norm.running_mean


def running_var(norm: nn.BatchNorm2d) -> Tensor:
    assert norm.running_var is not None
    return norm.running_var


def _pair(value: int | tuple[int, ...] | str) -> Pair:
    if isinstance(value, int):
        return value, value
    if isinstance(value, str):
        raise ValueError(f"padding {value!r}: give it in pixels")
    return value[0], value[1]
