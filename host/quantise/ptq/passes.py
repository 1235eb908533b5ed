"""Passes through a student in evaluation mode, layer by layer, in float or partly rounded."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from tutelage.host.quantise import nonlinear
from tutelage.host.quantise.forward import Forward
from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.student import Student


@contextmanager
def evaluating(student: Student) -> Iterator[None]:
    """Set evaluation mode, and restore the previous mode at the end."""
    training = student.training
    student.eval()
    try:
        yield
    finally:
        student.train(training)


class FloatPass(Forward):
    """A pass without rounding, with folded norms."""

    def __init__(self, student: Student) -> None:
        assert not student.training
        before, student.observer = student.observer, _ignore
        try:
            super().__init__(student)
        finally:
            student.observer = before


class PartlyRounded(Forward):
    """A pass in which only some of the quantisers round.

    Parameters
    ----------
    thresholds : indices of the quantisers that round
    biases : layers with weights whose biases are rounded
    """

    def __init__(
        self, student: Student, thresholds: Container[int], biases: Container[str]
    ) -> None:
        assert not student.training
        super().__init__(student)
        self.exact = False  # sums of float values are not exact anyway
        self.rounding = thresholds
        for name, conv in student.convs():
            (weight, bias), folded = self.parameters[name], conv.folded()
            if student.weight_of[name].index not in thresholds:
                weight = folded[0]
            self.parameters[name] = weight, bias if name in biases else folded[1]

    def rounded_result(self, layer: Layer, y: Tensor) -> Tensor:
        if layer.ties_fix_points:
            return y
        if self.student.activation_of[layer.name].index not in self.rounding:
            return nonlinear.apply_nonlinear(layer.nonlinear, y)
        return super().rounded_result(layer, y)


def values(forward: Forward, images: Sequence[Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and the value of each layer in order, freeing values no longer needed.

    Parameters
    ----------
    forward : the pass
    images : [N, C, H, W] for each input
    """
    student = forward.student
    given = dict(zip(student.inputs, images, strict=True))
    last = {source: name for name in student.layers for source in student.layer(name).inputs}
    kept: dict[str, Tensor] = {}
    for name in student.layers:
        layer = student.layer(name)
        args = [kept[source] for source in layer.inputs] or [given[name]]
        kept[name] = forward.rounded_result(layer, layer.compute(forward, *args))
        yield name, kept[name]
        for source in layer.inputs:
            if last[source] == name:
                kept.pop(source, None)


@torch.no_grad()
def outputs(forward: Forward, images: Sequence[Tensor], batch: int) -> tuple[Tensor, ...]:
    """Return each output of the network for all images [N, C, H, W], computed in batches."""
    found: dict[str, list[Tensor]] = {name: [] for name in forward.student.outputs}
    for part in split(images, batch):
        for name, value in values(forward, part):
            if name in found:
                found[name].append(value)
    return tuple(torch.cat(parts) for parts in found.values())


def split(images: Sequence[Tensor], batch: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches of at most `batch` images of each input."""
    return zip(*(part.split(batch) for part in images), strict=True)


def spread(images: Sequence[Tensor], most: int) -> tuple[Tensor, ...]:
    """Return at most `most` of the images of each input, evenly spaced."""
    count = len(images[0])
    chosen = torch.linspace(0, count - 1, min(most, count)).long()
    return tuple(given[chosen.to(given.device)] for given in images)


def _ignore(name: str, values: Tensor) -> None:
    """Observe nothing."""
