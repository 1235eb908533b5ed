"""Cross-layer equalisation: channel scales with which rounding costs least.

Nagel et al. 2019 (arXiv:1906.04721) scale each channel so that the ranges of its weights in two
layers are equal. Here scales minimise what rounding is expected to add to the squared error of the
output: with steps that follow from the largest value of each tensor, and with the importance w of
each value (host/quantise/ptq/importance.py), a rounded tensor adds

    step^2 / 12 * sum over channels of w / s^2

and the same of weights, each scaled by s_out / s_in, and of biases. The step is the largest
magnitude over 2^m; the maximum is taken as a p-norm. All terms are sums of products of powers of
the scales, so that the logarithm of the sum is convex in their logarithms (a geometric program):
there is one minimum, whatever scales the network comes with.

A ReLU6 is not homogeneous, and the DPU has no clip of its own for each channel. It has int8's
saturation: at fix point 4 a ReLU never gives more than 127/16. So a ReLU6 becomes a ReLU with that
limit (RELU8), a channel that reaches 6 is scaled by 127/96, which moves its 6 to the limit, and the
others by any factor that keeps their values below the limit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tutelage.host.quantise.nonlinear import RELU8_LIMIT
from tutelage.host.quantise.ptq.channels import FIXED, ChannelGroups, channel_groups, scale_channels
from tutelage.host.quantise.ptq.importance import Importance, importance
from tutelage.host.quantise.student import Student

_P = 16
"""Of the norm that stands for the largest value."""

_STEPS = 400
_RATE = 0.1
"""Of Adam on the logarithms of the scales."""

_FARTHEST = 24.0
"""Scales are 2^-24 to 2^24 of what makes a channel's largest value 1."""

HEADROOM = 1.2
"""By how much other images may pass the largest value of a channel that does not reach a 6."""


def equalise(student: Student, images: Tensor) -> None:
    """Scale channels in place; thresholds are to be set afterwards (`calibrate`).

    Parameters
    ----------
    images : [N, C, H, W], some tens; one backward pass each
    """
    found = importance(student, images)
    widened = _widened(student)
    groups = channel_groups(student, tuple(widened))
    limits = _limits(student, groups, found, widened)
    noise = _Noise(student, groups, found)
    scale = noise.least(*limits)
    scale_channels(student, groups, scale)
    for name in widened:
        student.layer(name).nonlinear = "RELU8"
    student._settlement._least = student._settlement._least_of_activations()


def _widened(student: Student) -> list[str]:
    """The layers whose ReLU6 becomes a ReLU that int8 limits."""
    layers = [student.layer(name) for name in student.layers]
    clipped = [layer.name for layer in layers if layer.nonlinear == "RELU6"]
    clipped = [name for name in clipped if student.activation_of[name].bits == 8]
    while True:
        groups = channel_groups(student, tuple(clipped))
        free = [name for name in clipped if bool((groups.of[name] != FIXED).all())]
        if free == clipped:
            return free
        clipped = free


def _limits(
    student: Student, groups: ChannelGroups, found: Importance, widened: list[str]
) -> tuple[Tensor, Tensor]:
    """The least and the largest log2 of the scale of each group."""
    low = torch.full((groups.count,), -math.inf, dtype=torch.float64)
    high = torch.full((groups.count,), math.inf, dtype=torch.float64)
    low[FIXED] = high[FIXED] = 0
    for name in widened:
        of, largest = groups.of[name], found.largest[name].double()
        reaches = largest >= 6
        most = torch.log2(RELU8_LIMIT / (HEADROOM * largest).clamp(1e-6, 6))
        high.scatter_reduce_(0, of, most, "amin")
        low.scatter_reduce_(0, of[reaches], most[reaches], "amax")
    return low, high


class _Noise:
    """The expected squared error of the output by rounding, as a function of the scales."""

    def __init__(self, student: Student, groups: ChannelGroups, found: Importance) -> None:
        self.count = groups.count
        self.tensors: list[_Rounded] = []
        start = torch.zeros(groups.count, dtype=torch.float64)
        for name, conv in student.convs():
            weight, bias = (value.detach().double() for value in conv.folded())
            largest = weight.abs().amax((2, 3))
            self.tensors += [
                _Rounded(
                    largest, found.weights[name].double(), groups.of[name], groups.inputs(conv),
                    conv.groups, student.weight_of[name].magnitude,
                ),
                _Rounded(bias.abs()[:, None], found.biases[name].double()[:, None],
                         groups.of[name], None, 1, 7),
            ]  # fmt: skip
        for quantiser in dict.fromkeys(student.activation_of.values()):
            members = [name for name in quantiser.members if name in found.largest]
            of = torch.cat([groups.of[name] for name in members])
            largest = torch.cat([found.largest[name].double() for name in members])
            weight = torch.cat([found.activations[name].double() for name in members])
            self.tensors.append(
                _Rounded(largest[:, None], weight[:, None], of, None, 1, quantiser.magnitude)
            )
            start.scatter_reduce_(0, of, largest, "amax")
        self.start = -torch.log2(torch.where(start > 0, start, 1.0))

    def __call__(self, log2_scale: Tensor) -> Tensor:
        """log2 of the sum over all tensors."""
        parts = torch.stack([tensor.log2_error(log2_scale) for tensor in self.tensors])
        return torch.logsumexp(parts * math.log(2), 0) / math.log(2)

    def least(self, low: Tensor, high: Tensor) -> Tensor:
        """The scales with the least error between limits of their logarithms."""
        low = torch.maximum(low, self.start - _FARTHEST)
        high = torch.minimum(high, self.start + _FARTHEST)
        log2_scale = torch.minimum(torch.maximum(self.start, low), high).requires_grad_()
        optimiser = torch.optim.Adam([log2_scale], _RATE, betas=(0.9, 0.95))
        with torch.enable_grad():
            for step in range(_STEPS):
                optimiser.param_groups[0]["lr"] = _RATE * (1 - step / _STEPS)
                optimiser.zero_grad()
                loss = self(log2_scale)
                if step % 50 == 0: print(step, float(loss))
                loss.backward()
                optimiser.step()
                with torch.no_grad():
                    log2_scale.copy_(torch.minimum(torch.maximum(log2_scale, low), high))
        print(float(self(log2_scale)))
        return torch.exp2(log2_scale.detach())


class _Rounded:
    """One tensor with one step: values [O, K], whose rows and columns are scaled.

    Parameters
    ----------
    largest, importance : [O, K]
    rows : group by which a row is multiplied, [O]
    columns : group by which a value is divided, [O, K]
    groups : of a convolution: rows of one group read the same columns
    """

    def __init__(
        self, largest: Tensor, importance: Tensor, rows: Tensor, columns: Tensor | None,
        groups: int, magnitude: int,
    ) -> None:  # fmt: skip
        outputs, depth = largest.shape
        self.peak = max(float(largest.max()), 1e-30)
        shape = (groups, outputs // groups, depth)
        self.powers = (largest / self.peak).pow(_P).view(shape)
        self.importance = importance.view(shape)
        self.rows = rows.view(groups, 1, -1)
        self.columns = None if columns is None else columns.view(shape)[:, 0, :, None]
        self.magnitude = magnitude

    def log2_error(self, log2_scale: Tensor) -> Tensor:
        rows = log2_scale[self.rows]
        columns = torch.zeros(()) if self.columns is None else log2_scale[self.columns]
        columns = columns.to(rows).expand(len(self.rows), self.powers.shape[2], 1)
        middle, centre = rows.detach().mean(), columns.detach().mean()
        rows, columns = rows - middle, columns - centre
        power = (torch.exp2(_P * rows) @ self.powers @ torch.exp2(-_P * columns)).sum()
        shares = (torch.exp2(-2 * rows) @ self.importance @ torch.exp2(2 * columns)).sum()
        step = torch.log2(power + 1e-300) / _P + math.log2(self.peak) - self.magnitude
        return 2 * step + torch.log2(shares + 1e-300)
