"""A float pass and a rounded one side by side, layer by layer over all images.

What is changed of a layer with weights between two steps is in force for the layers behind it, so
that one pass corrects a whole network in its order, each layer with what the rounding before it
leaves to it.
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
"""Of the values that are kept, which bounds the images used."""

_MOST_HALF = 60_000.0


@dataclass(frozen=True)
class Step:
    """A layer with weights, before it computes.

    Attributes
    ----------
    conv : it
    kept_inputs : rounded inputs, in parts [n, C, H, W] as they are kept
    kept_wanted : its results before the activation in float arithmetic, by float inputs
    """

    conv: Conv
    kept_inputs: list[Tensor]
    kept_wanted: list[Tensor]

    def parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs [n, C, H, W] and the results that are wanted [n, O, h, w], float32."""
        for x, y in zip(self.kept_inputs, self.kept_wanted, strict=True):
            yield x.float(), y.float()

    @property
    def places(self) -> int:
        """Places of the result's map, over all images."""
        return sum(y.shape[0] * y.shape[2:].numel() for y in self.kept_wanted)


@torch.no_grad()
def lockstep(
    student: Student, images: Sequence[Tensor], batch: int = 16, most_bytes: int = _MOST_BYTES
) -> Iterator[Step]:
    """Yield each layer with weights, which may be changed then.

    Wide maps are for the first layers of a network, whose few weights take few images; where maps
    get smaller, more images join, which pass through all layers before.

    Parameters
    ----------
    student : calibrated, in evaluation mode
    images : [N, C, H, W] of each input; they are used in a random order, always the same
    batch : images that are computed together
    most_bytes : of values that are kept: of every layer that is still to be read the real and the
        rounded one. One batch is used whatever it takes
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
    """By layer: what is kept of one image at most from there to the end."""
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
    """Some images, and of each layer that is still to be read the real and the rounded value."""

    def __init__(self, exact: Forward, rounded: Forward, given: dict[str, Tensor]) -> None:
        self.exact, self.rounded, self.given = exact, rounded, given
        self.last = _last_readers([exact.student.layer(name) for name in exact.student.layers])
        self.real: dict[str, Tensor] = {}
        self.found: dict[str, Tensor] = {}

    def wanted(self, layer: Layer) -> Tensor:
        """Return a layer's result before its activation, in float arithmetic."""
        return _small(layer.compute(self.exact, *self._arguments(self.real, layer)))

    def compute(self, layer: Layer, wanted: Tensor) -> None:
        """Take a layer's values, and drop what nothing reads any more."""
        self.real[layer.name] = _small(self.exact.rounded_result(layer, wanted.float()))
        y = layer.compute(self.rounded, *self._arguments(self.found, layer))
        self.found[layer.name] = self.rounded.rounded_result(layer, y).bfloat16()
        for source in layer.inputs:
            if self.last[source] == layer.name:
                self.real.pop(source, None)
                self.found.pop(source, None)

    def _arguments(self, values: dict[str, Tensor], layer: Layer) -> list[Tensor]:
        return [values[source].float() for source in layer.inputs] or [self.given[layer.name]]


def _small(values: Tensor) -> Tensor:
    """Return float16 where it has the range. (bfloat16 represents int8 values exactly.)"""
    return values.half() if float(values.abs().max()) < _MOST_HALF else values


def _fold_again(forward: Forward, conv: Conv) -> None:
    """Take a layer's parameters and fix points as they are now."""
    forward.points = forward.student.fix_points()
    weight, bias = conv.folded()
    point = forward.points.bias(conv, float(bias.abs().max()))
    rounding = forward.student.weight_of[conv.name]
    weight = rounding.quantise(weight, forward.points.weights[conv.name])
    forward.parameters[conv.name] = weight, quantise(bias, point, *BIAS_RANGE)
