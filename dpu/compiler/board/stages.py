"""Parts of a plan: stages, their strips, and the locations of inputs and results."""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.dpu.compiler.board.layout import ChipMap
from tutelage.dpu.compiler.board.network import Network, Node, Store, View
from tutelage.dpu.compiler.board.walk import Feed, Walk
from tutelage.dpu.isa.machine import Shape
from tutelage.dpu.ops.engine_layers import Phase

MAX_CHIP_STRIDE = 4
"""Most rows that share a bank in a map on the chip: `stride_out` of CONV."""

MAX_LENGTH = 1024
"""Most pixels of a row per instruction."""

MAX_JUMP = 1024
"""Most bank rows between rows of a map in the same bank, for CONV."""


WHOLE = Phase()
"""All rows and columns."""


@dataclass(frozen=True)
class Operand:
    """A map that a layer reads, on the chip.

    Attributes
    ----------
    chip : location of its rows
    group, groups : first channel group within a pixel, and number of groups
    lanes : (first channel, first lane) of its parts
    channels : number of channels
    feed : how its rows are loaded; None if they are already there
    ring : whether the previous layer in the same stage computes its rows
    """

    chip: ChipMap
    group: int
    groups: int
    lanes: tuple[tuple[int, int], ...]
    channels: int
    feed: Feed | None = None
    ring: bool = False


@dataclass(frozen=True)
class Save:
    """Destination of channels of a result in the DDR.

    Attributes
    ----------
    view : map that receives them
    group : first of their channel groups in the result
    channels : number of channels
    first : first channel within the view
    phase : rows and columns of the view
    """

    view: View
    group: int
    channels: int
    first: int = 0
    phase: Phase = WHOLE


@dataclass(frozen=True)
class Result:
    """Destination of a layer's result.

    Attributes
    ----------
    chip : location of the rows
    group : first channel group within a pixel
    saves : destinations in the DDR
    stays : whether other stages read it on the chip
    """

    chip: ChipMap
    group: int
    saves: tuple[Save, ...]
    stays: bool = False


@dataclass(frozen=True)
class Strip:
    """Columns of a layer's result, computed some rows at a time.

    Attributes
    ----------
    operands : maps that it reads
    walk : walk of a layer with a kernel
    result : destination; None for layers that only copy within the DDR
    height : rows of the result
    column, columns : first column and number of columns of the result
    tile : rows computed at a time
    """

    operands: tuple[Operand, ...]
    walk: Walk | None
    result: Result | None
    height: int
    column: int
    columns: int
    tile: int = 1


@dataclass(frozen=True)
class Stage:
    """Layers that are computed alternately, tile by tile.

    Attributes
    ----------
    nodes : in order; each passes its rows to the next, or all read the same rows
    strips : for each strip of columns, in order, the layers' parts of it
    """

    nodes: tuple[Node, ...]
    strips: tuple[tuple[Strip, ...], ...]


@dataclass(frozen=True)
class Plan:
    """Stages of a network, and the locations of its maps.

    Attributes
    ----------
    stages : stages in order
    resident : stores that are on the chip, each with the nodes that read it there
    rings : stores of which only some rows are ever on the chip, and none in the DDR
    """

    network: Network
    shape: Shape
    stages: tuple[Stage, ...]
    resident: dict[Store, list[int]]
    rings: set[Store]

    def in_ddr(self, store: Store) -> bool:
        """Return whether a store has a location in the DDR."""
        network = self.network
        if store in network.constants or store in self.rings:
            return False
        if store in network.inputs.values() or store in network.outputs.values():
            return True
        on_chip = set(self.resident.get(store, []))
        return store not in self.resident or any(
            place not in on_chip for place, _ in network.readers[store]
        )
