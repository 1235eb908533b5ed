"""Damping and freezing of weights that oscillate between two levels.

With the straight-through estimator a weight whose best value is between two levels crosses the
border between them again and again, which is noise for norms and other weights. Damping pulls
weights to the centre of their level; freezing fixes a weight that oscillates often at its most
frequent level (Nagel et al. 2022, arXiv:2203.11086, section 4.1, and section 4.2 with algorithm 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tutelage.host.quantise.layers.convolution import Conv
from tutelage.host.quantise.student import Student


def damping(student: Student) -> Tensor:
    """Return the sum of (q(w) - clip(w))^2 over all weights, a scalar.

    w are the weights with folded norms, as they are deployed, q(w) are w rounded to their levels,
    and clip(w) are w limited to the range of the levels, so that clipped weights are not damped.
    The gradient flows through clip(w) only. Nagel et al. 2022, section 4.1.
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
    """Detector of oscillating weights of a student, which it then freezes.

    A weight oscillates in a step in which its integer changes in the opposite direction to its last
    change. Its frequency is ``f = m o + (1 - m) f``, with o = 1 in such a step and else 0. Once f
    exceeds the threshold, the weight stays at the integer nearest to the moving average of its
    integers, even if the step size changes. Nagel et al. 2022, algorithm 1.

    The state is in buffers for each layer, float32 of the shape of its weights: `last` integers,
    `direction` of the last change, `often` (f), `average` of the integers, and the integer at which
    a weight is `held` (NaN: it is not frozen).

    Parameters
    ----------
    student : student to watch
    momentum : m, of both averages
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
        """Update the frequencies after a step of training, and restore frozen weights.

        Parameters
        ----------
        threshold : of f, in oscillations per step; weights above it are frozen
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
    """Set chosen weights of a layer so that they have these values once its norm is folded."""
    before, (folded, bias) = conv.weight.clone(), conv.folded()
    conv.set_folded(torch.where(chosen, weights, folded), bias)
    conv.weight.copy_(torch.where(chosen, conv.weight, before))
