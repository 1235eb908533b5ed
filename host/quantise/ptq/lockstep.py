"""A float pass and a rounded one side by side, layer by layer over all images.

What is changed of a layer with weights between two steps is in force for the layers behind it, so
that one pass corrects a whole network in its order, each layer with what the rounding before it
leaves to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.host.quantise.fake import quantise
from tutelage.host.quantise.fix_points import BIAS_RANGE
from tutelage.host.quantise.forward import Forward
from tutelage.host.quantise.layers.convolution import Conv
from tutelage.host.quantise.ptq.passes import FloatPass
from tutelage.host.quantise.student import Student

BYTES_OF_A_VALUE = 6
"""What is kept of a layer's values: those wanted, real and rounded."""

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
def lockstep(student: Student, images: Sequence[Tensor], batch: int = 16) -> Iterator[Step]:
    """Yield each layer with weights, which may be changed then.

    Parameters
    ----------
    student : calibrated, in evaluation mode
    images : [N, C, H, W] of each input; two values of every layer that is
        still to be read are kept of each
    batch : images that are computed together
    """
    exact, rounded = FloatPass(student), Forward(student)
    last = {source: name for name in student.layers for source in student.layer(name).inputs}
    given = dict(zip(student.inputs, (part.split(batch) for part in images), strict=True))
    real: dict[str, list[Tensor]] = {}
    found: dict[str, list[Tensor]] = {}
    for name in student.layers:
        layer = student.layer(name)
        wanted = [
            _small(layer.compute(exact, *args))
            for args in _arguments(real, layer.inputs, given.get(name, ()))
        ]
        if isinstance(layer, Conv):
            yield Step(layer, found[layer.inputs[0]], wanted)
            _fold_again(rounded, layer)
        real[name] = [_small(exact.rounded_result(layer, y.float())) for y in wanted]
        found[name] = [
            rounded.rounded_result(layer, layer.compute(rounded, *args)).bfloat16()
            for args in _arguments(found, layer.inputs, given.get(name, ()))
        ]
        for source in layer.inputs:
            if last[source] == name:
                real.pop(source, None)
                found.pop(source, None)


def _small(values: Tensor) -> Tensor:
    """Return float16 where it has the range. (bfloat16 represents int8 values exactly.)"""
    return values.half() if float(values.abs().max()) < _MOST_HALF else values


def _arguments(
    values: dict[str, list[Tensor]], inputs: tuple[str, ...], images: Sequence[Tensor]
) -> Iterator[tuple[Tensor, ...]]:
    if not inputs:
        return ((part,) for part in images)
    kept = zip(*(values[source] for source in inputs), strict=True)
    return (tuple(value.float() for value in args) for args in kept)


def _fold_again(forward: Forward, conv: Conv) -> None:
    """Take a layer's parameters and fix points as they are now."""
    forward.points = forward.student.fix_points()
    weight, bias = conv.folded()
    point = forward.points.bias(conv, float(bias.abs().max()))
    rounding = forward.student.weight_of[conv.name]
    weight = rounding.quantise(weight, forward.points.weights[conv.name])
    forward.parameters[conv.name] = weight, quantise(bias, point, *BIAS_RANGE)
