"""Resources of a layer: rows and slots of the banks, channel groups, cycles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from tutelage.dpu.compiler.board.network import Node, View
from tutelage.dpu.compiler.board.spans import spans_of
from tutelage.dpu.compiler.board.stages import WHOLE, Save
from tutelage.dpu.compiler.board.walk import Walk, walk_of
from tutelage.dpu.isa.machine import Shape
from tutelage.dpu.ops.engine_layers import (
    AluLayer,
    ConvLayer,
    EltwiseLayer,
    EngineLayer,
    Phase,
    WindowLayer,
)
from tutelage.dpu.ops.limits import BANK_DEPTH
from tutelage.dpu.ops.refusal import Refusal


def cost_of_column(node: Node, width: int) -> int:
    """Return the cycles of a column of a layer's result, by the array's rule."""
    height, layer = result_size(node)[0], node.layer
    groups = -(-node.inputs[0].channels // width)
    if isinstance(layer, ConvLayer):
        return height * math.prod(layer.kernel) * groups * -(-len(layer.weights) // width)
    kernel = math.prod(layer.kernel) if isinstance(layer, WindowLayer) else len(node.inputs)
    return 2 * height * kernel * groups


def walk_alike(layer: ConvLayer, other: EngineLayer) -> bool:
    """Return whether two convolutions need the same rows, or all of them, with the same stride."""
    if not isinstance(other, ConvLayer) or layer.stride != other.stride:
        return False
    same = layer.kernel == other.kernel and layer.pads == other.pads
    return same or min(layer.kernel[0], other.kernel[0]) >= layer.stride[0]


def fit_together(nodes: Sequence[Node], width: int) -> bool:
    """Return whether the constants of layers fit on the chip at the same time."""
    rows = [constant_rows(node, width) for node in nodes]
    return all(sum(bank) <= BANK_DEPTH for bank in zip(*rows, strict=True))


def constant_rows(node: Node, width: int) -> tuple[int, int, int]:
    """Return the bank rows of a layer's weights, of its depthwise weights, and of its biases."""
    layer, view = node.layer, node.inputs[0]
    groups = view.groups(width) if view.on_chip else -(-view.channels // width)
    if isinstance(layer, ConvLayer):
        lanes = view.lanes(width) if view.on_chip else [(0, 0)]
        spans = spans_of(layer, lanes, groups, width)
        return math.prod(layer.kernel) * sum(span.count for span in spans), 0, len(spans)
    if isinstance(layer, AluLayer):
        taps = math.prod(layer.kernel) if layer.weights is not None else 1
        return 0, taps * groups, groups
    return 0, 0, 0


def is_plain(node: Node) -> bool:
    """Return whether a layer computes all rows and columns of a map, row by row."""
    if isinstance(node.layer, WindowLayer):
        blocks = getattr(node.layer, "side", 1) > 1
        return node.layer.phase == WHOLE and not node.layer.is_dilated and not blocks
    return isinstance(node.layer, EltwiseLayer)


def phase_of(node: Node) -> Phase:
    return node.layer.phase if isinstance(node.layer, WindowLayer) else WHOLE


def output_groups(node: Node, width: int) -> int:
    """Return the number of channel groups of a layer's result, separate for each saved block."""
    layer = node.layer
    if isinstance(layer, ConvLayer):
        blocks = layer.side**2
        return blocks * -(-(len(layer.weights) // blocks) // width)
    return -(-node.outputs[0].channels // width)


def saves_of(node: Node, views: list[View], phase: Phase, width: int) -> tuple[Save, ...]:
    """Return the locations where a result is saved, with all its channels or block by block."""
    side = getattr(node.layer, "side", 1)
    if side == 1:
        return tuple(Save(view, 0, view.channels, phase=phase) for view in views)
    groups = output_groups(node, width) // side**2
    return tuple(
        Save(view, place * groups, view.channels,
             phase=Phase(place // side, side, place % side, side))
        for view in views
        for place in range(side**2)
    )  # fmt: skip


def whole_walk(node: Node) -> Walk:
    assert isinstance(node.layer, WindowLayer)
    return walk_of(node.layer, node.inputs[0])


def result_size(node: Node) -> tuple[int, int]:
    """Return height and width of a layer's result, of its phase only."""
    if isinstance(node.layer, WindowLayer):
        return node.layer.output
    return node.outputs[0].height, node.outputs[0].width


def strip_columns(width: int, strips: int) -> Iterator[tuple[int, int]]:
    """Yield the first column and the number of columns of each strip of a map."""
    each = -(-width // strips)
    for first in range(0, width, each):
        yield first, min(each, width - first)


def reaches_tiles(walk: Walk, tile: int, banks: int) -> bool:
    """Return whether an instruction can address all rows of a tile, with four addresses."""
    stride = walk.stride[0]
    for first in range(0, walk.output[0], tile):
        begin = first * stride - walk.pads[0]
        end = walk.rows(first, min(first + tile, walk.output[0]))[1]
        bank = begin // stride % banks
        if end - begin + begin % stride > (ADDRESSES * banks - bank) * stride:
            return False
    return True


def tile_rows(node: Node, walk: Walk | None, shape: Shape) -> int:
    """Return the result rows computed at a time: the engine's, if it can address all inputs.

    Raises
    ------
    Refusal
        A kernel has more rows than an instruction can address.
    """
    rows = shape.alu_rows if isinstance(node.layer, AluLayer) else shape.array.rows
    while walk is not None and rows and not reaches_tiles(walk, rows, shape.array.rows):
        rows //= 2
    if not rows:
        height = walk.kernel[0] if walk else 0
        raise Refusal(f"a kernel of {height} rows is too large", node.name)
    return rows


ADDRESSES = 4
"""Number of input addresses of an instruction; each addresses one row in every bank."""


def ring_slots(walks: Sequence[Walk], tile: int, banks: int, produced: int) -> int:
    """Return the slots of a ring for the rows of one tile of each walk.

    Parameters
    ----------
    tile : rows per tile
    produced : rows of the ring that are produced at a time
    """
    most = 1
    for first in range(0, max(walk.output[0] for walk in walks), tile):
        spans = [
            walk.rows(first, min(first + tile, walk.output[0]))
            for walk in walks
            if first < walk.output[0]
        ]
        begin = min(begin for begin, _ in spans)
        end = -(-max(end for _, end in spans) // produced) * produced
        most = max(most, min(walks[0].size[0], end) - begin)
    return -(-most // (walks[0].stride[0] * banks))
