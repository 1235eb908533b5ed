"""The walk of a layer's window over its input, and how the rows and columns are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tutelage.dpu.compiler.board.network import View
from tutelage.dpu.isa.executor import AUGMENTED_CHANNEL
from tutelage.dpu.ops.engine_layers import ConvLayer, Phase, WindowLayer

PAD_FIELD = 31
"""Largest `pad_start` and `pad_end` of a LOAD."""

SEPARATE_BYTES = 128
"""Least distance of pixels, bytes, at which they are loaded singly instead of the whole row."""


@dataclass(frozen=True)
class Feed:
    """How a map is loaded from the DDR to the chip, row by row.

    Attributes
    ----------
    view : map to read
    columns : pixels per row on the chip
    row, column : first row and column to load
    row_step, pixel_step : distance between loaded rows and between loaded pixels
    taps : for an augmented layer, number of pixels combined into one; otherwise 1
    left : for an augmented layer, columns of padding before the first pixel
    """

    view: View
    columns: int
    row: int = 0
    column: int = 0
    row_step: int = 1
    pixel_step: int = 1
    taps: int = 1
    left: int = 0

    @property
    def channels(self) -> int:
        """Bytes of a pixel on the chip."""
        return self.taps * self.view.channels


@dataclass(frozen=True)
class Walk:
    """A kernel's walk over a map as stored on the chip.

    Attributes
    ----------
    kernel, stride : height and width
    pads : rows above and columns left of the map; negative if the walk begins inside the map
    size : height and width of the map
    output : height and width of the result
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int]
    size: tuple[int, int]
    output: tuple[int, int]

    def rows(self, first: int, last: int) -> tuple[int, int]:
        """Return the range of map rows that rows first to last - 1 of the result need."""
        begin = first * self.stride[0] - self.pads[0]
        end = (last - 1) * self.stride[0] - self.pads[0] + self.kernel[0]
        return max(0, begin), max(0, min(self.size[0], end))

    def needs(self, row: int) -> bool:
        """Return whether any row of the result needs this row."""
        return (row + self.pads[0]) % self.stride[0] < self.kernel[0]

    def columns(self, first: int, count: int) -> tuple[Walk, int]:
        """Return the walk for some columns of the result, and the first column that it reads."""
        begin = first * self.stride[1] - self.pads[1]
        end = begin + (count - 1) * self.stride[1] + self.kernel[1]
        column, end = max(0, begin), min(self.size[1], end)
        part = replace(
            self, pads=(self.pads[0], column - begin), size=(self.size[0], end - column),
            output=(self.output[0], count),
        )  # fmt: skip
        return part, column


def walk_of(layer: WindowLayer, view: View) -> Walk:
    """Return the walk over a whole map."""
    size = view.height, view.width
    return Walk(layer.kernel, layer.stride, layer.pads, size, layer.output)


def feed(layer: WindowLayer, view: View, lanes: int, from_input: bool) -> tuple[Walk, Feed]:
    """Return the walk of a layer over a map in the DDR, and how the map is loaded.

    A first layer with few channels is augmented: the pixels under a row of the kernel become one.
    For a kernel of one pixel, only the pixels that it reads are loaded.

    Parameters
    ----------
    lanes : channels that the array processes in parallel
    from_input : whether the map is an input of the subgraph, which has room around it
    """
    walk = walk_of(layer, view)
    if from_input and isinstance(layer, ConvLayer) and _is_augmented(walk, view, lanes):
        taps, (down, across) = walk.kernel[1], walk.stride
        fed = Feed(view, walk.output[1], pixel_step=across, taps=taps, left=walk.pads[1])
        size = walk.size[0], walk.output[1]
        return (
            Walk((walk.kernel[0], 1), (down, 1), (walk.pads[0], 0), size, walk.output),
            fed,
        )
    inside = all(
        (count - 1) * step < size
        for count, step, size in zip(walk.output, walk.stride, walk.size, strict=True)
    )
    if walk.kernel != (1, 1) or walk.pads != (0, 0) or not inside:
        return walk, Feed(view, view.width)
    down, across = walk.stride
    if across > 1 and view.channels * across < SEPARATE_BYTES:
        across = 1
    columns = walk.output[1] if across > 1 else view.width
    stride, size = (1, walk.stride[1] // across), (walk.output[0], columns)
    fed = Feed(view, columns, row_step=down, pixel_step=across)
    return replace(walk, stride=stride, size=size), fed


def _is_augmented(walk: Walk, view: View, lanes: int) -> bool:
    width = walk.kernel[1]
    channels, words = width * view.channels, -(-width * view.channels // lanes)
    if words >= width * -(-view.channels // lanes) or channels > min(2 * lanes, AUGMENTED_CHANNEL):
        return False
    if walk.stride[1] > width or walk.pads[1] < 0 or view.pixel_stride != view.channels:
        return False
    missing = first_missing(walk, view)[1]
    end = words * lanes - channels + missing * view.channels
    return walk.pads[1] * view.channels <= PAD_FIELD and end <= PAD_FIELD


def first_missing(walk: Walk, view: View) -> tuple[int, int]:
    """Return how many windows of a row exceed the right edge, and by how many columns the first."""
    beyond = [
        x * walk.stride[1] - walk.pads[1] + walk.kernel[1] - view.width
        for x in range(walk.output[1])
    ]
    over = [columns for columns in beyond if columns > 0]
    return len(over), over[0] if over else 0


def columns(walk: Walk, fed: Feed, first: int, count: int) -> tuple[Walk, Feed]:
    """Return the walk and feed for some columns of the result."""
    part, column = walk.columns(first, count)
    at = fed.column + column * fed.pixel_step
    return part, replace(fed, column=at, columns=part.size[1])


def dilated(layer: WindowLayer, view: View) -> Iterator[tuple[Walk, Feed, Phase]]:
    """Yield the walks of a dilated layer, one per phase of rows and columns.

    Rows and columns that are `dilation` apart depend only on one another; for them the kernel's
    taps are adjacent.
    """
    for row in range(layer.dilation[0]):
        for column in range(layer.dilation[1]):
            phases = row, column
            firsts, pads, size, output = [], [], [], []
            for axis, length in enumerate((view.height, view.width)):
                step = layer.dilation[axis]
                before, first = divmod(phases[axis] - layer.pads[axis], step)
                firsts.append(first)
                pads.append(-before)
                size.append(-(-(length - first) // step))
                output.append(-(-(layer.output[axis] - phases[axis]) // step))
            if min(output) < 1:
                continue
            walk = Walk(layer.kernel, (1, 1), (pads[0], pads[1]), (size[0], size[1]),
                        (output[0], output[1]))  # fmt: skip
            down, across = layer.dilation
            fed = Feed(view, size[1], firsts[0], firsts[1], down, across)
            yield walk, fed, Phase(row, layer.dilation[0], column, layer.dilation[1])
