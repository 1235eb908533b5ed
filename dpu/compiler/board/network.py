"""Types of the first pass's result: layers, and the memory that they read and write."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from tutelage.core.fixed_point import Array
from tutelage.dpu.ops.engine_layers import EngineLayer


@dataclass(eq=False)
class Store:
    """Memory for one map, or for concatenated maps.

    Attributes
    ----------
    name : name of the op whose value it stores
    height, width, channels : size of the whole; for maps joined end to end 1, 1 and the bytes
    parts : first channel of each map in it
    register, offset : location in the DDR
    """

    name: str
    height: int
    width: int
    channels: int
    parts: tuple[int, ...]
    register: int = -1
    offset: int = 0

    @property
    def size(self) -> int:
        """Size in the DDR, bytes."""
        return self.height * self.width * self.channels

    def groups_before(self, channel: int, lanes: int) -> int:
        """Return the number of channel groups of a pixel on the chip before a channel.

        Each part begins with a new group.

        Parameters
        ----------
        channel : the first channel of a group, or `channels`
        lanes : channels per group
        """
        ends = [*self.parts[1:], self.channels]
        return sum(
            -(-(min(end, channel) - first) // lanes)
            for first, end in zip(self.parts, ends, strict=True)
            if first < channel
        )


@dataclass(frozen=True)
class View:
    """A map within a store.

    Attributes
    ----------
    first : channel at which it begins; for maps joined end to end its first byte
    height, width, channels : size of the map
    row_stride, pixel_stride : bytes between rows and between pixels in the DDR
    on_chip : whether its pixels are those of the store, so that the map can be read on the chip
    """

    store: Store
    first: int
    height: int
    width: int
    channels: int
    row_stride: int
    pixel_stride: int
    on_chip: bool = True

    def lanes(self, width: int) -> list[tuple[int, int]]:
        """Return the location of channels on the chip: (first channel, first lane) of each part.

        Parameters
        ----------
        width : lanes of a channel group
        """
        start = self.store.groups_before(self.first, width)
        inside = [p for p in self.store.parts if self.first < p < self.first + self.channels]
        return [
            (first - self.first, width * (self.store.groups_before(first, width) - start))
            for first in (self.first, *inside)
        ]

    def groups(self, width: int) -> int:
        """Return the number of its channel groups on the chip."""
        end, start = self.first + self.channels, self.first
        return self.store.groups_before(end, width) - self.store.groups_before(start, width)


@dataclass(eq=False)
class Node:
    """A layer with its locations in memory.

    Attributes
    ----------
    layer : the computation
    inputs : view of each operand
    outputs : all views that its result is written to; readers use the first
    """

    layer: EngineLayer
    inputs: list[View]
    outputs: list[View] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the op."""
        return self.layer.op


@dataclass(frozen=True)
class Network:
    """The layers of a DPU subgraph in order.

    Attributes
    ----------
    nodes : layers in order of computation
    stores : all memory of the subgraph
    inputs, outputs : stores by the name of the op that uploads or downloads them
    constants : stores of constant operands, with their int8 values
    views : view of each op's value, by name
    """

    nodes: list[Node]
    stores: list[Store]
    inputs: dict[str, Store]
    outputs: dict[str, Store]
    constants: dict[Store, Array]
    views: dict[str, View]

    @cached_property
    def readers(self) -> dict[Store, list[tuple[int, int]]]:
        """For each store, the (node, operand) pairs that read it."""
        found: dict[Store, list[tuple[int, int]]] = {store: [] for store in self.stores}
        for place, node in enumerate(self.nodes):
            for operand, view in enumerate(node.inputs):
                found[view.store].append((place, operand))
        return found

    @cached_property
    def writers(self) -> dict[Store, list[int]]:
        """For each store, the nodes that write it."""
        found: dict[Store, list[int]] = {store: [] for store in self.stores}
        for place, node in enumerate(self.nodes):
            for view in node.outputs:
                found[view.store].append(place)
        return found
