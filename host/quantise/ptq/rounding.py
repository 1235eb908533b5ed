"""Rounding of weights that minimises the error of each layer's result, as in AdaRound.

AdaRound (Nagel et al. 2020, arXiv:2004.10568) chooses for each weight whether it is rounded up or
down so as to minimise the squared error of the layer's result before its activation (eq. 13):

    sum over images and positions of || W x - V x' - (b' - b) ||^2

where W and V are the float and the rounded weights, x and x' the layer's float and rounded input,
and b and b' its float and rounded bias, so that errors of earlier layers and of the bias are
compensated too. This is a quadratic form in V: one pass over the images collects x' x'^T and
W x x'^T, after which no images are needed. Random differences between images would make the
weights worse for other images. So the products of two inputs around their means, and of an input
and the error from earlier layers, are shrunk towards 0 by the fraction of their squares that chance
explains (Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
matrices", with the images as the sample).

The paper minimises a relaxation by gradients. Here weights of all outputs are optimised one after
the other, with all others fixed, until none changes (coordinate descent). Each step, starting from
the nearest integers, reduces the error.
"""

from __future__ import annotations

import math

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
"""Number of passes over all weights; more hardly reduce the error."""

_BLOCK = 64
"""Number of weights after which the changes to all later ones are applied."""

_MOST_COLUMNS = 5000
"""Most weights per output; layers with more keep the nearest integers, since memory for the
products of all pairs of inputs, 4 bytes each, grows with the square."""

_MOST_ROWS = 40_000
"""Most positions used, over all images; of more, a random sample."""

_FEED = 1.0
"""Weight of the errors of earlier layers."""

_DAMPING = 1.0
"""Weight of the distance to the float weights, in units of the mean square of an input."""

_FINER = (-1, 0, 1, 2)
"""Fix points to try, relative to the current one."""


@torch.no_grad()
def round_layer(student: Student, step: Step) -> bool:
    """Round the weights of one layer, in place; return whether its bias was refined too.

    Large layers and transposed convolutions are not changed.
    """
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
        found, lost = problem.samples.polish(found, problem.bias, quantiser, chosen, point)
        bias = lost.flatten()
    conv.set_folded(found.view_as(weight), bias)
    return problem.samples is not None


def _legal(student: Student, quantiser: Quantiser, points: list[int]) -> list[int]:
    """Return the fix points of weights that require no other fix point to move."""
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
    """The quadratic form of the error of one layer with weights [groups, O / groups, K]."""

    def __init__(self, conv: Conv, step: Step, weight: Tensor, bias: Tensor) -> None:
        self.shape = (conv.groups, len(weight) // conv.groups, -1)
        self.weight, self.bias = weight.reshape(self.shape), bias.view(self.shape[:2])
        kept: list[tuple[Tensor, Tensor]] | None = None
        if conv.nonlinear != "NONE" and weight.numel() <= MOST_WEIGHTS:
            kept = []
        self._collect(conv, step, kept)
        diagonal = self.squares.diagonal(dim1=1, dim2=2)
        damping = _DAMPING * diagonal.mean(1).clamp(min=1e-12)
        diagonal.add_(damping[:, None])
        self.products += damping[:, None, None] * self.weight
        self.samples: Samples | None = None
        if kept is not None:
            inputs, wanted = (torch.cat(parts, 2) for parts in zip(*kept, strict=True))
            self.samples = Samples(inputs, wanted + self.bias[:, :, None], conv.nonlinear)

    def _collect(self, conv: Conv, step: Step, kept: list[tuple[Tensor, Tensor]] | None) -> None:
        """Accumulate the products over all images, and samples of inputs and results in `kept`."""
        generator = torch.Generator().manual_seed(0)
        share = min(1.0, _MOST_ROWS / step.places)
        some = slice(None, None, max(1, int(share * step.places) // PLACES))
        middle = _mean_inputs(conv, step).view(conv.groups, -1, 1)
        squares, products = Moment(keeps_diagonal=True), Moment()
        around, errors, count = torch.zeros_like(middle), torch.zeros_like(self.bias), 0
        for x, y in (pair for part in step.parts() for pair in zip(*part, strict=True)):
            results = (y - self.bias.view(-1, 1, 1)).view(*self.shape[:2], -1)
            rows = F.unfold(F.pad(x[None], conv.pads), conv.kernel, conv.dilation, 0, conv.stride)
            rows = rows.view(conv.groups, middle.shape[1], -1)
            if share < 1:
                places = math.ceil(share * rows.shape[2])
                chosen = torch.randperm(rows.shape[2], generator=generator)[:places].to(rows.device)
                rows, results = rows[:, :, chosen], results[:, :, chosen]
            if kept is not None:
                kept.append((rows[:, :, some], results[:, :, some]))
            error, rows = results - self.weight @ rows, rows - middle
            squares.add(rows @ rows.transpose(1, 2))
            products.add(error @ rows.transpose(1, 2))
            around += rows.sum(2, keepdim=True)
            errors += error.sum(2)
            count += rows.shape[2]
        total = squares.steady()
        moved = around @ middle.transpose(1, 2)
        self.squares = (
            total + moved + moved.transpose(1, 2) + count * middle @ middle.transpose(1, 2)
        )
        self.products = self.weight @ self.squares + _FEED * products.steady()
        self.products += errors[:, :, None] * middle.transpose(1, 2)

    def error(self, weight: Tensor) -> float:
        """Return the squared error of the result, after the activation if samples are kept.

        Without samples, a constant that does not depend on the weights is left out.
        """
        if self.samples is not None:
            return self.samples.error(weight, self.bias)
        return float(((weight @ self.squares - 2 * self.products) * weight).sum())

    def solve(self, quantiser: Quantiser, point: int, sweeps: int) -> Tensor:
        """Return the best rounded weights at a fix point, from two starting points."""
        found = [
            self._descend(start, quantiser, point, sweeps)
            for start in (
                quantiser.quantise(self.weight, point),
                self._fed_back(quantiser, point),
            )
        ]
        nearest, fed_back = ((f @ self.squares - 2 * self.products).mul_(f).sum(2) for f in found)
        return torch.where((fed_back < nearest)[:, :, None], found[1], found[0])

    def _fed_back(self, quantiser: Quantiser, point: int) -> Tensor:
        """Round one weight after the other, adjusting the later ones to compensate.

        This is algorithm 1 of GPTQ (Frantar et al. 2022, arXiv:2210.17323).
        """
        inverse = torch.cholesky_inverse(_factor(self.squares))
        wanted, factor = self.products @ inverse, torch.linalg.cholesky(inverse, upper=True)
        found = torch.empty_like(wanted)
        for start in range(0, wanted.shape[2], _BLOCK):
            end = min(start + _BLOCK, wanted.shape[2])
            lost = torch.empty_like(wanted[:, :, start:end])
            for k in range(start, end):
                found[:, :, k] = quantiser.quantise(wanted[:, :, k], point)
                error = (wanted[:, :, k] - found[:, :, k]) / factor[:, k, k, None]
                wanted[:, :, k:end] -= error[:, :, None] * factor[:, k, None, k:end]
                lost[:, :, k - start] = error
            wanted[:, :, end:] -= lost @ factor[:, start:end, end:]
        return found

    def _descend(self, found: Tensor, quantiser: Quantiser, point: int, sweeps: int) -> Tensor:
        """Set one weight after the other to its best value, with all others fixed."""
        rest = self.products - found @ self.squares  # minus half the gradient
        for _ in range(sweeps):
            start = found.clone()
            for first in range(0, found.shape[2], _BLOCK):
                block = slice(first, first + _BLOCK)
                squares, part = self.squares[:, block, block], found[:, :, block]
                near, before = rest[:, :, block].clone(), part.clone()
                for k in range(part.shape[2]):
                    best = part[:, :, k] + near[:, :, k] / squares[:, k, k, None]
                    best = quantiser.quantise(best, point)
                    near -= (best - part[:, :, k])[:, :, None] * squares[:, k, None, :]
                    part[:, :, k] = best
                rest -= (part - before) @ self.squares[:, block]
            if torch.equal(start, found):
                break
        return found


def _factor(squares: Tensor) -> Tensor:
    """Return the Cholesky factors of matrices, made positive definite if they are not.

    Shrinking the moments element by element may leave negative eigenvalues.
    """
    factor, failed = torch.linalg.cholesky_ex(squares)
    if not failed.any():
        return factor
    size = squares.diagonal(dim1=1, dim2=2).mean(1)
    missing = (1e-3 * size - torch.linalg.eigvalsh(squares)[:, 0]).clamp(min=0)
    unit = torch.eye(squares.shape[1], dtype=squares.dtype, device=squares.device)
    return torch.linalg.cholesky(squares + missing[:, None, None] * unit)


class Moment:
    """A sum of matrices over images, with shrinkage towards 0 by their variance."""

    def __init__(self, keeps_diagonal: bool = False) -> None:
        self.keeps_diagonal = keeps_diagonal
        self.total, self.squares, self.images = torch.zeros(()), 0.0, 0

    def add(self, one: Tensor) -> None:
        """Add the matrix of one image, [groups, rows, columns]."""
        self.total = one if self.images == 0 else self.total.add_(one)
        self.squares += self._square(one)
        self.images += 1

    def steady(self) -> Tensor:
        """Return the sum, shrunk towards 0 as far as differences between images explain it."""
        size, images = self._square(self.total), self.images
        chance = (images * self.squares - size) / max(1, images - 1)
        share = min(1.0, max(0.0, chance / size)) if size > 0 and images > 1 else 1.0
        found = self.total * (1 - share)
        if self.keeps_diagonal:
            found.diagonal(dim1=1, dim2=2).copy_(self.total.diagonal(dim1=1, dim2=2))
        return found

    def _square(self, one: Tensor) -> float:
        square = torch.linalg.vector_norm(one).square()
        if self.keeps_diagonal:
            square -= torch.linalg.vector_norm(one.diagonal(dim1=1, dim2=2)).square()
        return float(square)


def _mean_inputs(conv: Conv, step: Step) -> Tensor:
    """Return the mean of each input of a result, [I * kh * kw], ignoring borders."""
    total = sum(x.mean((2, 3)).sum(0) for x, _ in step.parts())
    assert isinstance(total, Tensor)
    images = sum(len(x) for x in step.kept_inputs)
    return (total / images).repeat_interleave(math.prod(conv.kernel))
