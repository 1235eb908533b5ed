"""The sensitivity of a network's output to errors of its weights, biases and activations.

An error e in a value v changes the output y by about (dy/dv) e. With r drawn from N(0, 1) for each
element of the output, the expectation of (d(r.y)/dv)^2 is the squared norm of dy/dv (Hutchinson's
estimator). So one backward pass for each image estimates how much an independent error of variance
1 adds to the squared error of the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tutelage.host.quantise.ptq.passes import FloatPass, split, values
from tutelage.host.quantise.student import Student


@dataclass
class Importance:
    """Sums over images of squared gradients.

    Attributes
    ----------
    weights : name of a layer with weights -> [O, I / groups], summed over the kernel
    biases : name of a layer with weights -> [O]
    activations : name of a layer whose result is rounded -> [C], summed over the map
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    biases: dict[str, Tensor] = field(default_factory=dict)
    activations: dict[str, Tensor] = field(default_factory=dict)


def importance(student: Student, images: Sequence[Tensor]) -> Importance:
    """Return the importance of a student's values in float arithmetic.

    Parameters
    ----------
    student : in evaluation mode
    images : [N, C, H, W] for each input
    """
    generator = torch.Generator().manual_seed(0)
    found = Importance()
    with torch.enable_grad():
        for image in split(images, 1):
            _add(found, student, image, generator)
    return found


def _add(
    found: Importance, student: Student, image: Sequence[Tensor], generator: torch.Generator
) -> None:
    one = FloatPass(student)
    parameters: dict[str, tuple[Tensor, Tensor]] = {}
    for name, conv in student.convs():
        weight, bias = conv.folded()
        parameters[name] = weight.detach().requires_grad_(), bias.detach().requires_grad_()
    one.parameters = dict(parameters)
    rounded: dict[str, Tensor] = {}
    total = torch.zeros(())
    for name, value in values(one, image):
        if not student.layer(name).ties_fix_points:
            rounded[name] = value if value.requires_grad else value.requires_grad_()
        if name in student.outputs:
            chosen = torch.randn(value.shape, generator=generator).to(value)
            total = total.to(value) + (chosen * value).sum()
    names, layers = list(parameters), list(rounded)
    leaves = [v for name in names for v in parameters[name]] + [rounded[name] for name in layers]
    squares = [
        torch.zeros_like(leaf) if grad is None else grad.square()
        for leaf, grad in zip(
            leaves, torch.autograd.grad(total, leaves, allow_unused=True),
            strict=True,
        )
    ]  # fmt: skip
    for index, name in enumerate(names):
        _sum(found.weights, name, squares[2 * index].sum((2, 3)))
        _sum(found.biases, name, squares[2 * index + 1])
    for name, square in zip(layers, squares[2 * len(names) :], strict=True):
        _sum(found.activations, name, square.flatten(2).sum((0, 2)))


def _sum(totals: dict[str, Tensor], name: str, value: Tensor) -> None:
    totals[name] = totals[name] + value.cpu() if name in totals else value.cpu()


@torch.no_grad()
def channel_samples(
    student: Student, images: Sequence[Tensor], values_of_each: int
) -> dict[str, Tensor]:
    """Return a random sample of the float values of each channel.

    Parameters
    ----------
    student : in evaluation mode
    images : [N, C, H, W] for each input
    values_of_each : largest number n of values of each channel

    Returns
    -------
    Name of a layer whose result is rounded -> [C, n].
    """
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {}
    for name, value in values(FloatPass(student), images):
        if not student.layer(name).ties_fix_points:
            flat = value.flatten(2).transpose(0, 1).flatten(1)
            size = (min(values_of_each, flat.shape[1]),)
            chosen = torch.randint(flat.shape[1], size, generator=generator)
            found[name] = flat[:, chosen.to(flat.device)].cpu()
    return found


@torch.no_grad()
def largest_magnitudes(
    student: Student, images: Sequence[Tensor], batch: int = 16
) -> dict[str, Tensor]:
    """Return the largest magnitude of each channel in float.

    Parameters
    ----------
    student : in evaluation mode
    images : [N, C, H, W] for each input
    batch : number of images computed at a time

    Returns
    -------
    Name of a layer whose result is rounded -> [C].
    """
    found: dict[str, Tensor] = {}
    one = FloatPass(student)
    for part in split(images, batch):
        for name, value in values(one, part):
            if not student.layer(name).ties_fix_points:
                peak = value.abs().flatten(2).amax((0, 2)).cpu()
                found[name] = torch.maximum(found[name], peak) if name in found else peak
    return found
