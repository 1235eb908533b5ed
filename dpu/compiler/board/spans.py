"""Which channels of its map each group of a convolution's outputs reads.

A grouped convolution, or one that picks channels, has weights for few of them. The array takes a
group of outputs at a time, and only those channel groups of the map that have a weight other than
0 for it.
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
    """Channel groups of a pixel that follow each other: the first one, and their number."""

    first: int
    count: int


def groups_of(layer: ConvLayer, width: int) -> list[range]:
    """Return the output channels of each group; blocks that become pixels do not share one."""
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
    """Return for each group of outputs the channel groups that it reads; one at least.

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
    """The span of what is used, [outputs, groups, lanes]."""
    places = np.unique(np.nonzero(used)[1])
    return Span(int(places[0]), int(places[-1] - places[0]) + 1) if len(places) else Span(0, 1)
