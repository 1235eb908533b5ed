"""How a layer walks over its input: the rows and columns that it needs, and how they are loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tutelage.dpu.compiler.board.network import View
from tutelage.dpu.isa.executor import AUGMENTED_CHANNEL
from tutelage.dpu.ops.engine_layers import ConvLayer, WindowLayer

PAD_FIELD = 31
"""Highest `pad_start` and `pad_end` of a LOAD."""


@dataclass(frozen=True)
class Feed:
    """How a map comes from the DDR to the chip, row by row.

    Attributes
    ----------
    view : that is read
    column, columns : the first pixel of a row, and how many come to the chip
    row_step, pixel_step : rows of the view, and pixels, from one that is loaded to the next
    taps : of an augmented layer: pixels that overlap in one; 1 for none
    left : of an augmented layer: columns of padding before the first pixel
    """

    view: View
    column: int
    columns: int
    row_step: int = 1
    pixel_step: int = 1
    taps: int = 1
    left: int = 0

    @property
    def channels(self) -> int:
        """Bytes of a pixel on the chip."""
        return self.taps * self.view.channels

    @property
    def rows(self) -> int:
        """Rows on the chip."""
        return -(-self.view.height // self.row_step)


@dataclass(frozen=True)
class Walk:
    """A kernel's walk over a map as it is on the chip.

    Attributes
    ----------
    kernel, stride : height and width
    pads : rows above and columns left of the map; negative where the walk begins inside
    size : height and width of the map
    output : height and width of the result
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int]
    size: tuple[int, int]
    output: tuple[int, int]

    def rows(self, first: int, last: int) -> tuple[int, int]:
        """Return the rows of the map that rows first to last - 1 of the result need."""
        begin = first * self.stride[0] - self.pads[0]
        end = (last - 1) * self.stride[0] - self.pads[0] + self.kernel[0]
        return max(0, begin), min(self.size[0], end)

    def needs(self, row: int) -> bool:
        """Whether any row of the result needs this row."""
        return (row + self.pads[0]) % self.stride[0] < self.kernel[0]


def walk_of(layer: WindowLayer, view: View) -> Walk:
    """Return the walk over a whole map."""
    size = view.height, view.width
    return Walk(layer.kernel, layer.stride, layer.pads, size, layer.output)


def feed(layer: WindowLayer, view: View, lanes: int, from_input: bool) -> tuple[Walk, Feed]:
    """Return how a layer walks over a map that comes from the DDR, and how that is loaded.

    A first layer of few channels is augmented: the pixels under a row of the kernel become one.
    Of a kernel of one pixel only those that it reads are loaded.

    Parameters
    ----------
    lanes : channels that the array takes at once
    from_input : whether the map is an input of the subgraph, which has room around it
    """
    walk = walk_of(layer, view)
    if from_input and isinstance(layer, ConvLayer) and _is_augmented(walk, view, lanes):
        taps = walk.kernel[1]
        feed = Feed(view, 0, walk.output[1], 1, walk.stride[1], taps, walk.pads[1])
        kernel, stride = (walk.kernel[0], 1), (walk.stride[0], 1)
        size = walk.size[0], walk.output[1]
        return Walk(kernel, stride, (walk.pads[0], 0), size, walk.output), feed
    down, across = walk.stride
    if walk.kernel != (1, 1) or walk.pads != (0, 0):
        return walk, Feed(view, 0, view.width)
    if across > 1 and view.channels * across < SEPARATE_BYTES:
        across = 1
    size = (walk.output[0], -(-view.width // across))
    columns = walk.output[1] if across > 1 else view.width
    stride = (1, walk.stride[1] // across)
    walk = replace(walk, stride=stride, size=(size[0], columns))
    return walk, Feed(view, 0, columns, down, across)


SEPARATE_BYTES = 128
"""Bytes of pixels to skip from which on single pixels are loaded, not the whole row."""


def _is_augmented(walk: Walk, view: View, lanes: int) -> bool:
    height, width = walk.kernel
    channels, words = width * view.channels, -(-width * view.channels // lanes)
    if words >= width * -(-view.channels // lanes) or channels > min(2 * lanes, AUGMENTED_CHANNEL):
        return False
    if walk.stride[1] > width or walk.pads[1] < 0 or view.pixel_stride != view.channels:
        return False
    missing = first_missing(walk, view)[1]
    end = words * lanes - channels + missing * view.channels
    return walk.pads[1] * view.channels <= PAD_FIELD and end <= PAD_FIELD


def first_missing(walk: Walk, view: View) -> tuple[int, int]:
    """Return how many of a row's positions reach past the right edge, and by how much the first."""
    beyond = [
        x * walk.stride[1] - walk.pads[1] + walk.kernel[1] - view.width
        for x in range(walk.output[1])
    ]
    over = [columns for columns in beyond if columns > 0]
    return len(over), over[0] if over else 0


def strip(walk: Walk, feed: Feed, first: int, count: int) -> tuple[Walk, Feed]:
    """Return walk and feed for some columns of the result.

    Parameters
    ----------
    first, count : columns of the result
    """
    begin = first * walk.stride[1] - walk.pads[1]
    end = min(walk.size[1], begin + (count - 1) * walk.stride[1] + walk.kernel[1])
    column = max(0, begin)
    pads = walk.pads[0], column - begin
    part = replace(walk, pads=pads, size=(walk.size[0], end - column), output=(walk.output[0], count))
    return part, replace(feed, column=feed.column + column, columns=end - column)
