"""A float pass and a rounded one side by side, layer by layer over all images.

What is changed of a layer with weights between two steps is in force for the layers behind it, so
that one pass corrects a whole network in its order, each layer with what the rounding before it
leaves to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.host.quantise.fake import quantise
from tutelage.host.quantise.fix_points import BIAS_RANGE
from tutelage.host.quantise.forward import Forward
from tutelage.host.quantise.layers.convolution import Conv
from tutelage.host.quantise.ptq.passes import FloatPass
from tutelage.host.quantise.student import Student


@dataclass(frozen=True)
class Step:
    """A layer with weights, before it computes.

    Attributes
    ----------
    conv : it
    inputs : rounded, in parts [n, C, H, W]
    wanted : its results before the activation in float arithmetic, by float inputs, in such parts
    """

    conv: Conv
    inputs: list[Tensor]
    wanted: list[Tensor]


@torch.no_grad()
def lockstep(student: Student, images: Tensor, batch: int = 16) -> Iterator[Step]:
    """Yield each layer with weights, which may be changed then.

    Parameters
    ----------
    student : calibrated, in evaluation mode
    images : [N, C, H, W]; two values of every layer that is still to be read are kept of each
    batch : images that are computed together
    """
    exact, rounded = FloatPass(student), Forward(student)
    last = {source: name for name in student.layers for source in student.layer(name).inputs}
    parts = list(images.split(batch))
    real: dict[str, list[Tensor]] = {}
    found: dict[str, list[Tensor]] = {}
    for name in student.layers:
        layer = student.layer(name)
        wanted = [layer.compute(exact, *args) for args in _arguments(real, layer.inputs, parts)]
        if isinstance(layer, Conv):
            yield Step(layer, found[layer.inputs[0]], wanted)
            _fold_again(rounded, layer)
        real[name] = [exact.rounded_result(layer, y) for y in wanted]
        found[name] = [
            rounded.rounded_result(layer, layer.compute(rounded, *args))
            for args in _arguments(found, layer.inputs, parts)
        ]
        for source in layer.inputs:
            if last[source] == name:
                real.pop(source, None)
                found.pop(source, None)


def _arguments(
    values: dict[str, list[Tensor]], inputs: tuple[str, ...], images: list[Tensor]
) -> list[tuple[Tensor, ...]]:
    if not inputs:
        return [(part,) for part in images]
    return list(zip(*(values[source] for source in inputs), strict=True))


def _fold_again(forward: Forward, conv: Conv) -> None:
    """Take a layer's parameters and fix points as they are now."""
    forward.points = forward.student.fix_points()
    weight, bias = conv.folded()
    point = forward.points.bias(conv, float(bias.abs().max()))
    assert forward.folded is not None
    forward.folded[conv.name] = weight, quantise(bias, point, *BIAS_RANGE)
