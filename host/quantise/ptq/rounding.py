"""Weights rounded so that each layer's result stays, not so that each weight does.

AdaRound (Nagel et al. 2020, arXiv:2004.10568) chooses for each weight whether it is rounded up or
down, with the least squared error of the layer's result before its activation (eq. 13):

    sum over images and places of || W x - V x' - (b' - b) ||^2

where x is the layer's float input, x' the rounded one and b' the rounded bias, so that errors of
the layers before it and of the bias are made up for as well. This is a quadratic form in V: one
pass over the images collects x' x'^T and W x x'^T, after which no image is needed. The
paper minimises it by gradients of a relaxation; here one weight of each output after the other
takes the better of its two values, all others being held, until none moves (coordinate descent).
The error falls with every step, starting from the nearest integers. Weights that could go farther
than to the next integers would learn the errors of these very images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.host.quantise.fake import quantise
from tutelage.host.quantise.fix_points import BIAS_RANGE
from tutelage.host.quantise.layers.convolution import Conv
from tutelage.host.quantise.layers.transposed import TransposedConv
from tutelage.host.quantise.ptq.lockstep import Step
from tutelage.host.quantise.ptq.polishing import MOST_WEIGHTS, PLACES, Samples
from tutelage.host.quantise.quantisers import Quantiser
from tutelage.host.quantise.student import Student

_SWEEPS = 6
"""Times that each weight is looked at; the error hardly falls after that."""

_BLOCK = 64
"""Weights after which what they change for all others is brought up to date."""

_MOST_COLUMNS = 5000
"""Weights of one output above which a layer keeps the nearest integers: their products, squared,
take 4 bytes each."""

_MOST_ROWS = 40_000
"""Places of the map, over all images, that are looked at; of more, a random sample."""

_DAMPING = 0.1
"""Pull to the float weights, as a share of the mean square of an input."""

_FINER = (-1, 0, 1, 2)
"""Fix points that are tried, from the one that is set."""


@torch.no_grad()
def round_layer(student: Student, step: Step) -> bool:
    """Round the weights of one layer; returns whether its bias was chosen with them."""
    conv = step.conv
    weight, bias = conv.folded()
    if weight[0].numel() > _MOST_COLUMNS or isinstance(conv, TransposedConv):
        return False
    points = student.fix_points()
    point = points.bias(conv, float(bias.abs().max()))
    lost = quantise(bias, point, *BIAS_RANGE)
    problem = _Problem(conv, step, weight, lost)
    quantiser, now = student.weight_of[conv.name], points.weights[conv.name]
    candidates = _legal(student, quantiser, [now + finer for finer in _FINER])
    tried = [problem.solve(quantiser, candidate, 1) for candidate in candidates]
    errors = [problem.error(found) for found in tried]
    chosen = candidates[errors.index(min(errors))]
    found = problem.solve(quantiser, chosen, _SWEEPS)
    if chosen != now:
        _set_point(student, quantiser, chosen)
    if problem.samples is not None:
        down, up = problem.limits(quantiser, chosen)
        found, lost = problem.samples.polish(found, problem.bias, down, up, point)
        bias = lost.flatten()
    conv.set_folded(found.view_as(weight), bias)
    return problem.samples is not None


def _legal(student: Student, quantiser: Quantiser, points: list[int]) -> list[int]:
    """The fix points of weights that move no other one."""
    before, threshold = student.fix_points(), float(student.log2_t[quantiser.index])
    name = quantiser.members[0]
    found = []
    for point in points:
        _set_point(student, quantiser, point)
        after = student.fix_points()
        weights = before.weights | {name: point}
        if after.activations == before.activations and after.weights == weights:
            found.append(point)
    student.log2_t[quantiser.index] = threshold
    return found or [before.weights[name]]


def _set_point(student: Student, quantiser: Quantiser, point: int) -> None:
    student.log2_t[quantiser.index] = quantiser.magnitude - point - 0.5


class _Problem:
    """The quadratic form of one layer: rows of weights [groups, O / groups, K]."""

    def __init__(self, conv: Conv, step: Step, weight: Tensor, bias: Tensor) -> None:
        shape = (conv.groups, len(weight) // conv.groups, -1)
        self.weight, self.bias = weight.reshape(shape), bias.view(shape[:2])
        polished = conv.nonlinear != "NONE" and weight.numel() <= MOST_WEIGHTS
        kept: list[tuple[Tensor, Tensor]] = []
        generator = torch.Generator().manual_seed(0)
        share = min(1.0, _MOST_ROWS / step.places)
        columns = self.weight.shape[2]
        self.squares = weight.new_zeros(conv.groups, columns, columns, dtype=torch.float32)
        self.products = torch.zeros_like(self.weight)
        self.energy = 0.0
        images = (pair for part in step.parts() for pair in zip(*part, strict=True))
        for x, y in images:
            results = (y - bias.view(-1, 1, 1)).view(*shape[:2], -1)
            padded = F.pad(x[None], conv.pads)
            rows = F.unfold(padded, conv.kernel, conv.dilation, 0, conv.stride)
            rows = rows.view(conv.groups, columns, -1)
            if share < 1:
                count = max(1, int(share * rows.shape[2]))
                chosen = torch.randperm(rows.shape[2], generator=generator)[:count].to(rows.device)
                rows, results = rows[:, :, chosen], results[:, :, chosen]
            if polished:
                some = slice(None, None, max(1, step.places // PLACES))
                kept.append((rows[:, :, some], results[:, :, some]))
            self.squares += rows @ rows.transpose(1, 2)
            self.products += results @ rows.transpose(1, 2)
            self.energy += float(results.square().sum())
        diagonal = self.squares.diagonal(dim1=1, dim2=2)
        damping = _DAMPING * diagonal.mean(1).clamp(min=1e-12)
        self.squares.diagonal(dim1=1, dim2=2).add_(damping[:, None])
        self.products += damping[:, None, None] * self.weight
        self.energy += float((damping[:, None, None] * self.weight.square()).sum())
        self.samples: Samples | None = None
        if polished:
            inputs, wanted = (torch.cat(parts, 2) for parts in zip(*kept, strict=True))
            self.samples = Samples(inputs, wanted + self.bias[:, :, None], conv.nonlinear)

    def error(self, weight: Tensor) -> float:
        """The squared error of the result, behind the activation where samples are kept."""
        if self.samples is not None:
            return self.samples.error(weight, self.bias)
        quadratic = ((weight @ self.squares) * weight).sum()
        return float(quadratic - 2 * (self.products * weight).sum()) + self.energy

    def solve(self, quantiser: Quantiser, point: int, sweeps: int) -> Tensor:
        """The weights on the grid of a fix point."""
        down, up = self.limits(quantiser, point)
        found = quantiser.quantise(self.weight, point)
        rest = self.products - found @ self.squares  # minus half the gradient
        for _ in range(sweeps):
            before = found.clone()
            for start in range(0, found.shape[2], _BLOCK):
                self._sweep(found, rest, down, up, slice(start, start + _BLOCK))
            if torch.equal(before, found):
                break
        return found

    def limits(self, quantiser: Quantiser, point: int) -> tuple[Tensor, Tensor]:
        """The next values below and above each weight, where the quantiser has them."""
        step = 2.0**-point
        down = (self.weight / step).floor() * step
        return quantiser.quantise(down, point), quantiser.quantise(down + step, point)

    def _sweep(self, found: Tensor, rest: Tensor, down: Tensor, up: Tensor, block: slice) -> None:
        """Give each weight of some columns the better of its two values; `rest` follows."""
        squares = self.squares[:, block, block]
        part, near = found[:, :, block], rest[:, :, block].clone()
        before, down, up = part.clone(), down[:, :, block], up[:, :, block]
        middle = (down + up) / 2
        for k in range(part.shape[2]):
            best = part[:, :, k] + near[:, :, k] / squares[:, k, k, None]
            best = torch.where(best < middle[:, :, k], down[:, :, k], up[:, :, k])
            near -= (best - part[:, :, k])[:, :, None] * squares[:, k, None, :]
            part[:, :, k] = best
        rest -= (part - before) @ self.squares[:, block]
