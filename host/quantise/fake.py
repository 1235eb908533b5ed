"""Fake quantisation to powers of two with trained thresholds.

TQT (Jain et al. 2020, arXiv:1903.08066): a value is rounded to multiples of

    s = 2^ceil(log2 t) / 2^m          m = bits of the magnitude

and clipped to [lowest, 2^m - 1] of them. Without the ceil it is a real step, whose gradients are
the same. With u = x / s the gradients are

    dy/dx      = 1 where the value is not clipped, else 0
    dy/dlog2 t = s ln 2 * (round(u) - u   where it is not clipped,
                           the clip limit where it is)

the ceil and the round being passed straight through. Every rounding here is
half up, floor(u + 1/2), the DPU's own (DPU_ROUND); weights and biases use the
same, since they reach the DPU as finished integers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

_HALF = torch.tensor(0.5)


def quantise(x: Tensor, fix_point: float, lowest: int, highest: int) -> Tensor:
    """clip(floor(x * 2^fix_point + 1/2), lowest, highest) * 2^-fix_point, any shape.

    The rule of `tutelage.core.fixed_point.quantise_int8` for tensors, of any range.
    """
    half = _HALF.to(x.device)
    # One pass for scale and half, then in place: memory traffic is what this costs.
    q = torch.add(half, x, alpha=2.0**fix_point).floor_().clamp_(lowest, highest)
    return q.mul_(2.0**-fix_point)


class Rounding(NamedTuple):
    """The integers that a quantiser allows, and their unit 2^-fix_point, which may be any real."""

    fix_point: float
    lowest: int
    highest: int

    def inside(self, relu: bool = False) -> tuple[float, float]:
        """Return the open interval of what is not clipped; with `relu` of what is positive too."""
        step = 2.0**-self.fix_point
        return 0.0 if relu else (self.lowest - 0.5) * step, (self.highest + 0.5) * step


class FakeQuantise(torch.autograd.Function):
    """`quantise` with TQT's gradients to `x` and to the scalar `log2_t`.

    `relu` says that x comes straight from a convolution and meets its ReLU here:
    the clip at 0 (`lowest` must be 0) is the ReLU, and only x > 0 gets a gradient.
    The backward pass uses sum(g * (y - x)) over the values inside plus
    sum(g * y) over the clipped ones = <g, y> - <g inside, x>: two dot products
    instead of a temporary per term.
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
    """A batch norm by the batch's own statistics, then `FakeQuantise`, over one process.

    The norm's gradients give <g inside, x> = <dgamma, gamma> + <dbeta, beta>, x being affine in
    gamma and beta, so that a pass over the map less is needed than by both one after the other.
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
        """`statistics`: the running mean and variance, which follow, momentum and epsilon."""
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
    """Sum of a * b; without a copy where both lie dense in memory in the same order."""
    if a.stride() == b.stride() and _is_dense(a):
        flat = (a.numel(),)
        return torch.dot(a.as_strided(flat, (1,)), b.as_strided(flat, (1,)))
    return (a * b).sum()


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or (
        x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    )
