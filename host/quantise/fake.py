"""Fake quantisation to powers of two with trained thresholds (TQT).

TQT (Jain et al. 2020, arXiv:1903.08066) rounds a value x to multiples of the step

    s = 2^ceil(log2 t) / 2^m          m = bits of the magnitude

and clips it to [lowest, 2^m - 1] steps. With u = x / s the gradients of the result y are

    dy/dx      = 1 where the value is not clipped, else 0
    dy/dlog2 t = s ln 2 * (round(u) - u   where the value is not clipped,
                           the clip limit where it is clipped)

with straight-through estimates for ceil and round. Without the ceil the step is a
real number, with the same gradients. All rounding is half up, floor(u + 1/2), as on
the DPU (DPU_ROUND). Weights and biases are rounded in the same way, since the DPU
receives them as integers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

_HALF = torch.tensor(0.5)


def quantise(x: Tensor, fix_point: float, lowest: int, highest: int) -> Tensor:
    """Return clip(floor(x * 2^fix_point + 1/2), lowest, highest) * 2^-fix_point.

    It rounds as `tutelage.core.fixed_point.quantise_int8`, for tensors of any shape and any range.
    """
    half = _HALF.to(x.device)
    # Memory traffic dominates: one pass for the scale and the half, then in place.
    q = torch.add(half, x, alpha=2.0**fix_point).floor_().clamp_(lowest, highest)
    return q.mul_(2.0**-fix_point)


class Rounding(NamedTuple):
    """The range of integers of a quantiser, and its fix point, which may be fractional."""

    fix_point: float
    lowest: int
    highest: int

    def inside(self, relu: bool = False) -> tuple[float, float]:
        """Return the open interval of values not clipped; with `relu`, only of positive ones."""
        step = 2.0**-self.fix_point
        return 0.0 if relu else (self.lowest - 0.5) * step, (self.highest + 0.5) * step


class FakeQuantise(torch.autograd.Function):
    """`quantise` with TQT's gradients to `x` and to the scalar `log2_t`.

    With `relu`, x is the result of a convolution whose ReLU has not been applied:
    the clip at 0 (`lowest` must be 0) is the ReLU, and only x > 0 gets a gradient.
    The backward pass computes the gradient of the threshold, sum(g * (y - x)) over
    the values inside plus sum(g * y) over the clipped ones, as <g, y> - <g inside, x>,
    which takes two dot products and no temporary tensor per term.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        log2_t: Tensor,
        fix_point: float,
        lowest: int,
        highest: int,
        relu: bool,
    ) -> Tensor:
        y = quantise(x, fix_point, lowest, highest)
        ctx.save_for_backward(x, y)
        ctx.inside = Rounding(fix_point, lowest, highest).inside(relu)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, y = ctx.saved_tensors
        inner = torch.ops.aten.hardtanh_backward(grad, x, *ctx.inside)
        grad_t = None
        if ctx.needs_input_grad[1]:
            total = _dot(grad, y) - _dot(inner, x)
            grad_t = total * math.log(2)
        return inner, grad_t, None, None, None, None


class NormQuantise(torch.autograd.Function):
    """A batch norm with the batch's own statistics, followed by `FakeQuantise`, in one process.

    Since x is affine in gamma and beta, the norm's gradients give
    <g inside, x> = <dgamma, gamma> + <dbeta, beta>, which saves one pass over the map compared
    with the two functions in sequence.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        weight: Tensor,
        bias: Tensor,
        statistics: tuple[Tensor, Tensor, float, float],
        log2_t: Tensor,
        rounding: Rounding,
        relu: bool,
    ) -> Tensor:
        """Normalise and round; `statistics` are running mean and variance, momentum and epsilon.

        The running mean and variance are updated in place.
        """
        mean, var, momentum, eps = statistics
        x, *own = torch.native_batch_norm(z, weight, bias, mean, var, True, momentum, eps)
        y = quantise(x, *rounding)
        ctx.save_for_backward(z, weight, bias, x, y, *own)
        ctx.inside, ctx.eps = rounding.inside(relu), eps
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        z, weight, bias, x, y, *own = ctx.saved_tensors
        inner = torch.ops.aten.hardtanh_backward(grad, x, *ctx.inside)
        by_z, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            inner, z, weight, None, None, *own, True, ctx.eps, [True, True, True]
        )
        passed = torch.dot(by_weight, weight) + torch.dot(by_bias, bias)
        by_threshold = (_dot(grad, y) - passed) * math.log(2)
        return by_z, by_weight, by_bias, None, by_threshold, None, None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum of a * b, without copying if both are dense with the same strides."""
    if a.stride() == b.stride() and _is_dense(a):
        flat = (a.numel(),)
        return torch.dot(a.as_strided(flat, (1,)), b.as_strided(flat, (1,)))
    return (a * b).sum()


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or (
        x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    )
