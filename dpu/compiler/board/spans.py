"""Input channels that each group of a convolution's outputs reads.

A grouped convolution, or one that selects channels, has weights for few of them. The array computes
a group of outputs at a time, reading only those channel groups of the map that have a non-zero
weight for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.dpu.compiler.board.parameters import spread
from tutelage.dpu.ops.engine_layers import ConvLayer


@dataclass(frozen=True)
class Span:
    """Consecutive channel groups of a pixel: the first one, and their number."""

    first: int
    count: int


def groups_of(layer: ConvLayer, width: int) -> list[range]:
    """Return the output channels of each group; blocks saved as pixels do not share groups."""
    outputs = len(layer.weights)
    block = outputs // layer.side**2
    return [
        range(first, min(first + width, start + block))
        for start in range(0, outputs, block)
        for first in range(start, start + block, width)
    ]


def spans_of(
    layer: ConvLayer, lanes: Sequence[tuple[int, int]], groups: int, width: int
) -> list[Span]:
    """Return, for each group of outputs, the channel groups that it reads; at least one.

    Parameters
    ----------
    lanes : (first channel, first lane) of the map's parts
    groups : channel groups of the map
    width : lanes of a group
    """
    outputs = groups_of(layer, width)
    if layer.used.all():
        return [Span(0, groups)] * len(outputs)
    used = spread(layer.used.astype(np.int8), tuple(lanes), groups, width)
    padded = np.pad(used, ((0, 0), (0, groups * width - used.shape[1])))
    by_group: Array = padded.reshape(len(used), groups, width)
    return [_span(by_group[part.start : part.stop]) for part in outputs]


def _span(used: Array) -> Span:
    """Return the span of used channel groups; `used` is [outputs, groups, lanes]."""
    places = np.unique(np.nonzero(used)[1])
    return Span(int(places[0]), int(places[-1] - places[0]) + 1) if len(places) else Span(0, 1)
