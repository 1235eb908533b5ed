"""Weights that oscillate between two levels: Nagel et al. 2022, arXiv:2203.11086.

The straight-through estimator moves a weight whose best value lies between two levels to and fro
over the border between them, and norms and other weights see noise. Damping pulls weights to the
middle of their level (section 4.1); freezing fixes at its most frequent level a weight that
oscillates often (section 4.2, algorithm 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tutelage.host.quantise.layers.convolution import Conv
from tutelage.host.quantise.student import Student


def damping(student: Student) -> Tensor:
    """Return the sum of (q(w) - clip(w))^2 over all weights, with a gradient to w alone.

    w are the weights as they are deployed, norms folded, q(w) those rounded to their levels and
    clip(w) those limited to the range of the levels, so that clipped weights are left alone.
    """
    points = student.points().weights
    total = student.log2_t.new_zeros(())
    for name, conv in student.convs():
        quantiser, point = student.weight_of[name], points[name]
        weight = conv.folded()[0]
        rounded = quantiser.quantise(weight.detach(), point)
        step = 2.0**-point
        clipped = weight.clamp(quantiser.lowest * step, quantiser.highest * step)
        total = total + (rounded - clipped).square().sum()
    return total


def rising(progress: float) -> float:
    """Return the share of the damping at `progress` (0..1): a cosine from 0 to 1 (section 5.3)."""
    return (1 - math.cos(math.pi * progress)) / 2


class Freezing(nn.Module):
    """Finds the weights of a student that oscillate, and holds them.

    A weight oscillates in a step where its integer changes in the other direction than at its last
    change. ``f = m o + (1 - m) f`` is how often it does, o being 1 in such a step; where f is above
    the threshold, the weight is held from then on at the integer nearest to the moving average of
    its integers, whatever becomes of the step size.

    Parameters
    ----------
    student : whose weights are watched
    momentum : m, of both averages

    Attributes
    ----------
    state is in buffers by layer, float32 of the shape of the weights: `last` integers, `direction`
    of the last change, `often` (f), `average` of the integers, `held` (NaN: it is free)
    """

    def __init__(self, student: Student, momentum: float = 0.01) -> None:
        super().__init__()
        self._momentum = momentum
        for number, integers in enumerate(self._integers(student)):
            none = torch.full_like(integers, math.nan)
            for key, value in (("last", integers), ("direction", torch.zeros_like(integers)),
                               ("often", torch.zeros_like(integers)),
                               ("average", integers.clone()), ("held", none)):  # fmt: skip
                self.register_buffer(f"{key}{number}", value)

    def _integers(self, student: Student) -> list[Tensor]:
        points = student.points().weights
        return [
            student.weight_of[name].quantise(conv.folded()[0].detach(), points[name])
            * 2.0 ** points[name]
            for name, conv in student.convs()
        ]

    @torch.no_grad()
    def hold(self, student: Student, threshold: float) -> None:
        """Take note of a step that was made, and put back the weights that are held.

        Parameters
        ----------
        threshold : of f, above which a weight is held from now on
        """
        points, m = student.points().weights, self._momentum
        integers_of = self._integers(student)
        for number, ((name, conv), integers) in enumerate(
            zip(student.convs(), integers_of, strict=True)
        ):
            last, direction, often, average, held = (
                self.get_buffer(f"{key}{number}")
                for key in ("last", "direction", "often", "average", "held")
            )
            change = torch.sign(integers - last)
            often.lerp_((change * direction < 0).to(often), m)
            average.lerp_(integers, m)
            direction.copy_(torch.where(change == 0, direction, change))
            is_held = ~held.isnan()
            held.copy_(torch.where(~is_held & (often > threshold), average.round(), held))
            is_held = ~held.isnan()
            if is_held.any():
                _put(conv, held * 2.0 ** -points[name], is_held)
            last.copy_(torch.where(is_held, held, integers))


def _put(conv: Conv, weights: Tensor, chosen: Tensor) -> None:
    """Let a layer's chosen weights be these when its norm is folded."""
    before, (folded, bias) = conv.weight.clone(), conv.folded()
    conv.set_folded(torch.where(chosen, weights, folded), bias)
    conv.weight.copy_(torch.where(chosen, conv.weight, before))
