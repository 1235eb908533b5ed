"""Cross-layer equalisation: scales of channels that minimise the cost of rounding.

Nagel et al. 2019 (arXiv:1906.04721) scale each channel so that the ranges of its weights in two
layers are equal. Here the scales s minimise the expected squared error that rounding adds to the
output. With the importance w of each value (host/quantise/ptq/importance.py), a rounded tensor of
activations adds

    step^2 / 12 * sum over channels of w / s^2

and so do weights, which are scaled by s_out / s_in, and biases. The step is the largest magnitude
of the tensor divided by 2^m, where the maximum is approximated by a p-norm. All terms are sums of
products of powers of the scales, so the logarithm of their sum is convex in the logarithms of the
scales (a geometric program), with one minimum that does not depend on the network's initial scales.

A ReLU6 is not homogeneous, and the DPU cannot clip each channel differently. But int8 saturates: at
fix point 4, a ReLU never gives more than 127/16. So a ReLU6 becomes a ReLU with that limit (RELU8),
and its channels are scaled by 127/96, which moves their 6 to the limit. The function is the same,
and the whole range of int8 is used. (Channels that stay below 6 in the sample images could have
other scales, but exceed the limit in other images; on EfficientNet-Lite0 this cost more than it
gained.)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from tutelage.host.quantise.fix_points import BIAS_BITS
from tutelage.host.quantise.nonlinear import RELU8_LIMIT
from tutelage.host.quantise.ptq.alignment import aligned_scale
from tutelage.host.quantise.ptq.channels import FIXED, ChannelGroups, channel_groups, scale_channels
from tutelage.host.quantise.ptq.importance import (
    Importance,
    channel_samples,
    importance,
    largest_magnitudes,
)
from tutelage.host.quantise.ptq.passes import evaluating, spread
from tutelage.host.quantise.quantisers import Quantiser
from tutelage.host.quantise.student import Student

_P = 16
"""Order p of the norm that approximates the maximum."""

_STEPS = 60
_RATE = 1 / (2 * _P)
"""Factor on the steps, since a p-norm depends on the p-th powers of two scales."""

_TINY = 1e-300

_FARTHEST = 24.0
"""Scales are within 2^-24 to 2^24 times those that make a channel's largest value 1."""

_MOST_GRADIENTS = 16
"""Most images for which gradients are computed."""

_SAMPLES = 256
"""Number of values of each channel for the alignment of ranges."""


def equalise(
    student: Student,
    images: Sequence[Tensor],
    weights: float = 1.0,
    fixed: Collection[str] = (),
) -> None:
    """Scale channels in place; thresholds must be set afterwards by `calibrate`.

    Parameters
    ----------
    student : the student
    images : [N, C, H, W] for each input, of which up to 16 get a backward pass each
    weights : factor on the errors of weights; below 1 if rounding is better than to the nearest
    fixed : names of layers whose channels keep their scales
    """
    some = spread(images, _MOST_GRADIENTS)
    with evaluating(student):
        found, largest = importance(student, some), largest_magnitudes(student, images)
        samples = channel_samples(student, some, _SAMPLES)
    widened = _widened(student, fixed)
    groups = channel_groups(student, widened, fixed)
    low, high = _limits(groups, widened)
    scale = _Noise(student, groups, found, largest, weights).least(low, high)
    scale = aligned_scale(student, groups, scale, low == high, found, samples, weights)
    scale_channels(student, groups, scale)
    if widened:
        student.widen(widened)


def _widened(student: Student, fixed: Collection[str]) -> list[str]:
    """Return the names of the layers whose ReLU6 becomes a ReLU limited by int8."""
    layers = [student.layer(name) for name in student.layers]
    clipped = [layer.name for layer in layers if layer.nonlinear == "RELU6"]
    clipped = [name for name in clipped if student.activation_of[name].bits == 8]
    while True:
        groups = channel_groups(student, clipped, fixed)
        free = [name for name in clipped if bool((groups.of[name] != FIXED).all())]
        if free == clipped:
            return free
        clipped = free


def _limits(groups: ChannelGroups, widened: list[str]) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest log2 of the scale allowed for each group."""
    low = torch.full((groups.count,), -math.inf, dtype=torch.float64)
    for name in widened:
        low[groups.of[name]] = math.log2(RELU8_LIMIT / 6)
    low[FIXED] = 0
    return low, torch.where(low.isfinite(), low, math.inf)


class _Noise:
    """The expected squared error of the output due to rounding, as a function of the scales."""

    def __init__(
        self, student: Student, groups: ChannelGroups, found: Importance,
        peaks: dict[str, Tensor], weights: float,
    ) -> None:  # fmt: skip
        quantisers = dict.fromkeys(student.activation_of.values())
        ranges = {q: self._range(groups, peaks, q) for q in quantisers}
        start = torch.zeros(groups.count, dtype=torch.float64)
        for of, largest in ranges.values():
            start.scatter_reduce_(0, of, largest, "amax")
        self.speaks = start > 0
        for name, conv in student.convs():  # channels always 0 start from their bias and weights
            weight, bias = (value.detach().double().cpu() for value in conv.folded())
            largest = torch.maximum(weight.abs().amax((1, 2, 3)), bias.abs())
            silent = ~self.speaks[groups.of[name]]
            start.scatter_reduce_(0, groups.of[name][silent], largest[silent], "amax")
        self.start = -torch.log2(torch.where(start > 0, start, 1.0))
        self.tensors: list[_Rounded] = []
        for name, conv in student.convs():
            weight, bias = (value.detach().double().cpu() for value in conv.folded())
            rows, columns = groups.of[name], groups.inputs(conv)
            of_weights = self._steady(found.weights[name], rows, columns)
            of_biases = self._steady(found.biases[name][:, None], rows, None)
            self.tensors += [
                _Rounded(
                    weight.abs().amax((2, 3)), weights * of_weights, rows, columns, conv.groups,
                    student.weight_of[name].magnitude,
                ),
                _Rounded(bias.abs()[:, None], of_biases, rows, None, 1, BIAS_BITS - 1),
            ]  # fmt: skip
        for quantiser, (of, largest) in ranges.items():
            members = [name for name in quantiser.members if name in peaks]
            if not largest.any():
                continue  # all values are 0, as in a branch that a norm turns off
            values = torch.cat([found.activations[name] for name in members])[:, None]
            of_values = self._steady(values, of, None)
            self.tensors.append(
                _Rounded(largest[:, None], of_values, of, None, 1, quantiser.magnitude)
            )

    @staticmethod
    def _range(
        groups: ChannelGroups, peaks: dict[str, Tensor], quantiser: Quantiser
    ) -> tuple[Tensor, Tensor]:
        """Return the group and the largest magnitude of each channel that a quantiser rounds."""
        members = [name for name in quantiser.members if name in peaks]
        largest = torch.cat([peaks[name].double() for name in members])
        of = torch.cat([groups.of[name] for name in members])
        return of, largest

    def _steady(self, importance: Tensor, rows: Tensor, columns: Tensor | None) -> Tensor:
        """Return the importance from a few images, regularised by its median at equal ranges.

        Channels that are always 0 get no such addition.
        """
        unit = torch.exp2(-2 * self.start[rows])[:, None]
        speaks = self.speaks[rows][:, None]
        if columns is not None:
            unit = unit * torch.exp2(2 * self.start[columns])
            speaks = speaks & self.speaks[columns]
        equal = importance.double() * unit
        if not bool(speaks.any()):
            return importance.double()
        return (equal + speaks * equal[speaks].median()) / unit

    def least(self, low: Tensor, high: Tensor) -> Tensor:
        """Return the scales with the least error, within limits of their log2.

        At the minimum, the part of the error that grows with a scale and the part that falls with
        it have equal slopes. So each step moves all scales by the logarithm of their ratio.
        """
        low = torch.maximum(low, self.start - _FARTHEST)
        high = torch.minimum(high, self.start + _FARTHEST)
        log2_scale = torch.minimum(torch.maximum(self.start, low), high)
        for _ in range(_STEPS):
            grows, falls = self.slopes(log2_scale)
            move = _RATE * torch.log2((falls + _TINY) / (grows + _TINY))
            log2_scale = torch.minimum(torch.maximum(log2_scale + move, low), high)
        return torch.exp2(log2_scale)

    def slopes(self, log2_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return the growing and the falling part of log2(error)'s slope over each log2 scale."""
        errors = torch.stack([tensor.rescale(log2_scale) for tensor in self.tensors])
        self.error = float(torch.logsumexp(errors * math.log(2), 0)) / math.log(2)
        grows, falls = torch.zeros_like(log2_scale), torch.zeros_like(log2_scale)
        for tensor, share in zip(self.tensors, errors.sub(self.error).exp2().tolist(), strict=True):
            grows.index_add_(0, tensor.rows.flatten(), tensor.peak_rows.flatten(), alpha=share)
            falls.index_add_(0, tensor.rows.flatten(), tensor.error_rows.flatten(), alpha=share)
            if tensor.columns is not None:
                columns = tensor.columns.flatten()
                falls.index_add_(0, columns, tensor.peak_columns.flatten(), alpha=share)
                grows.index_add_(0, columns, tensor.error_columns.flatten(), alpha=share)
        return grows, falls


class _Rounded:
    """The rounding error of one tensor, with values [O, K] whose rows and columns are scaled.

    Parameters
    ----------
    largest, importance : largest magnitude and importance of each value, [O, K]
    rows : group by whose scale a row is multiplied, [O]
    columns : group by whose scale a value is divided, [O, K]; None: none
    groups : groups of the convolution, in each of which all rows read the same columns
    magnitude : bits of the largest integer
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

    def rescale(self, log2_scale: Tensor) -> Tensor:
        """Return log2 of the error with these scales, and store the contribution of each scale.

        `peak_rows` and `peak_columns` are fractions of the p-norm, `error_rows` and `error_columns`
        fractions of the sum of errors; each adds up to 1.
        """
        rows = log2_scale[self.rows]
        zero = rows.new_zeros(len(self.powers), self.powers.shape[2], 1)
        columns = zero if self.columns is None else log2_scale[self.columns]
        middle = rows.mean() - columns.mean()
        rows, columns = rows - rows.mean(), columns - columns.mean()
        power, peak_rows, peak_columns = _product(
            torch.exp2(_P * rows), self.powers, torch.exp2(-_P * columns)
        )
        error, error_rows, error_columns = _product(
            torch.exp2(-2 * rows), self.importance, torch.exp2(2 * columns)
        )
        self.peak_rows, self.peak_columns = peak_rows, peak_columns
        self.error_rows, self.error_columns = error_rows, error_columns
        step = torch.log2(power) / _P + math.log2(self.peak) + middle - self.magnitude
        return 2 * (step - middle) + torch.log2(error)


def _product(rows: Tensor, matrix: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sum of rows x matrix x columns, and the fraction of each row and column."""
    by_column = rows @ matrix
    by_row = matrix @ columns
    total = (by_column @ columns).sum() + _TINY
    return total, by_row.transpose(1, 2) * rows / total, by_column.transpose(1, 2) * columns / total
