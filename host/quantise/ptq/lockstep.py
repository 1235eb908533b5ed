"""A float pass and a rounded pass in parallel, layer by layer over all images.

A change of a layer's parameters between two steps affects all layers after it. So one pass corrects
a whole network in order, each layer for the rounding errors of those before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from tutelage.host.quantise.fake import quantise
from tutelage.host.quantise.fix_points import BIAS_RANGE
from tutelage.host.quantise.forward import Forward
from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.layers.convolution import Conv
from tutelage.host.quantise.ptq.passes import FloatPass
from tutelage.host.quantise.student import Student

_MOST_BYTES = 1 << 30
"""Default limit on the memory of the values that are kept, bytes."""

_MOST_HALF = 60_000.0
"""Largest magnitude that is stored in float16, whose own limit is 65,504."""


@dataclass(frozen=True)
class Step:
    """A layer with weights, before it is computed.

    Attributes
    ----------
    conv : the layer
    kept_inputs : its rounded inputs, in parts [n, C, H, W] of reduced precision
    kept_wanted : its float results for float inputs, before the activation, in parts [n, O, h, w]
    """

    conv: Conv
    kept_inputs: list[Tensor]
    kept_wanted: list[Tensor]

    def parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield rounded inputs [n, C, H, W] and float results [n, O, h, w], both float32."""
        for x, y in zip(self.kept_inputs, self.kept_wanted, strict=True):
            yield x.float(), y.float()

    @property
    def places(self) -> int:
        """Number of positions in the maps of the result, over all images."""
        return sum(y.shape[0] * y.shape[2:].numel() for y in self.kept_wanted)


@torch.no_grad()
def lockstep(
    student: Student, images: Sequence[Tensor], batch: int = 16, most_bytes: int = _MOST_BYTES
) -> Iterator[Step]:
    """Yield each layer with weights in order, before it is computed; it may then be changed.

    The large maps of the first layers allow few images, which are enough for their few weights.
    As maps get smaller, more images are added, and computed by all layers before.

    Parameters
    ----------
    student : calibrated, in evaluation mode
    images : [N, C, H, W] for each input, used in a reproducible random order
    batch : number of images computed at a time
    most_bytes : limit on the values that are kept, which are the float and the rounded result of
        each layer that another one still reads; at least one batch is used
    """
    exact, rounded = FloatPass(student), Forward(student)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(images[0]), generator=generator).to(images[0].device).split(batch)
    layers = [student.layer(name) for name in student.layers]
    parts: list[_Part] = []
    for index, (layer, size) in enumerate(zip(layers, _bytes_of_image(layers), strict=True)):
        for chosen in order[len(parts) : max(1, most_bytes // (size * batch))]:
            given = (part[chosen] for part in images)
            parts.append(_Part(exact, rounded, dict(zip(student.inputs, given, strict=True))))
            for before in layers[:index]:
                parts[-1].compute(before, parts[-1].wanted(before))
        wanted = [part.wanted(layer) for part in parts]
        if isinstance(layer, Conv):
            yield Step(layer, [part.found[layer.inputs[0]] for part in parts], wanted)
            _fold_again(rounded, layer)
        for part, y in zip(parts, wanted, strict=True):
            part.compute(layer, y)


def _last_readers(layers: Sequence[Layer]) -> dict[str, str]:
    return {source: layer.name for layer in layers for source in layer.inputs}


def _bytes_of_image(layers: Sequence[Layer]) -> list[int]:
    """Return for each layer the most bytes kept per image from there to the end."""
    last = _last_readers(layers)
    kept: dict[str, int] = {}
    sizes = []
    for layer in layers:
        kept[layer.name] = math.prod(layer.shape)
        sizes.append(4 * sum(kept.values()) + 2 * kept[layer.name])
        for source in layer.inputs:
            if last[source] == layer.name:
                kept.pop(source, None)
    return [*accumulate(reversed(sizes), max)][::-1]


class _Part:
    """Some images, with the float and the rounded result of each layer that is still to be read."""

    def __init__(self, exact: Forward, rounded: Forward, given: dict[str, Tensor]) -> None:
        self.exact, self.rounded, self.given = exact, rounded, given
        self.last = _last_readers([exact.student.layer(name) for name in exact.student.layers])
        self.real: dict[str, Tensor] = {}
        self.found: dict[str, Tensor] = {}

    def wanted(self, layer: Layer) -> Tensor:
        """Return a layer's result before its activation, in float arithmetic."""
        return _small(layer.compute(self.exact, *self._arguments(self.real, layer)))

    def compute(self, layer: Layer, wanted: Tensor) -> None:
        """Store a layer's values, and drop those that no later layer reads."""
        self.real[layer.name] = _small(self.exact.rounded_result(layer, wanted.float()))
        y = layer.compute(self.rounded, *self._arguments(self.found, layer))
        # bfloat16 represents int8 values exactly.
        self.found[layer.name] = self.rounded.rounded_result(layer, y).bfloat16()
        for source in layer.inputs:
            if self.last[source] == layer.name:
                self.real.pop(source, None)
                self.found.pop(source, None)

    def _arguments(self, values: dict[str, Tensor], layer: Layer) -> list[Tensor]:
        return [values[source].float() for source in layer.inputs] or [self.given[layer.name]]


def _small(values: Tensor) -> Tensor:
    """Convert to float16 if the range suffices."""
    return values.half() if float(values.abs().max()) < _MOST_HALF else values


def _fold_again(forward: Forward, conv: Conv) -> None:
    """Update a pass with the current parameters and fix points of a layer."""
    forward.points = forward.student.fix_points()
    weight, bias = conv.folded()
    point = forward.points.bias(conv, float(bias.abs().max()))
    rounding = forward.student.weight_of[conv.name]
    weight = rounding.quantise(weight, forward.points.weights[conv.name])
    forward.parameters[conv.name] = weight, quantise(bias, point, *BIAS_RANGE)
