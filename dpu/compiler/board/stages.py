"""What a plan consists of: stages, their strips, and the places of what they read and give."""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.dpu.compiler.board.layout import ChipMap
from tutelage.dpu.compiler.board.network import Network, Node, Store, View
from tutelage.dpu.compiler.board.walk import Feed, Walk
from tutelage.dpu.isa.machine import Shape
from tutelage.dpu.ops.engine_layers import Phase

MAX_CHIP_STRIDE = 4
"""Rows that share a bank in a map on the chip: `stride_out` of CONV."""

MAX_LENGTH = 1024
"""Pixels of a row that one instruction takes."""

MAX_JUMP = 1024
"""Bank rows from a row of a map to the next in the same bank: of CONV."""


WHOLE = Phase()
"""All rows and columns."""


@dataclass(frozen=True)
class Operand:
    """A map that a layer reads, on the chip.

    Attributes
    ----------
    chip : where its rows are
    group, groups : the first of its channel groups in a pixel, and their number
    lanes : (first channel, first lane) of its parts
    channels : of it
    feed : how its rows are loaded; None where they are there
    ring : whether the layer before in the same stage computes its rows
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
    """Where channels of a result go in the DDR.

    Attributes
    ----------
    view : that gets them
    group : the first of their channel groups in the result
    channels : of them
    first : where they begin in the view
    phase : which rows and columns of the view they are
    """

    view: View
    group: int
    channels: int
    first: int = 0
    phase: Phase = WHOLE


@dataclass(frozen=True)
class Result:
    """Where a layer writes.

    Attributes
    ----------
    chip : where the rows are
    group : the first of its channel groups in a pixel
    saves : places in the DDR that get it too
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
    walk : of a layer with a kernel
    result : None of layers that only copy within the DDR
    height : rows of the result
    column, columns : of the result
    tile : rows that are computed at a time
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
    """Layers that are computed in turn, tile by tile.

    Attributes
    ----------
    nodes : in order; each gives its rows to the next, or all read the same rows
    strips : for each strip of columns, one after the other, the layers' parts of it
    """

    nodes: tuple[Node, ...]
    strips: tuple[tuple[Strip, ...], ...]


@dataclass(frozen=True)
class Plan:
    """Where everything is.

    Attributes
    ----------
    stages : in order
    resident : stores that are on the chip, each with the nodes that read it there
    rings : stores of which only some rows are ever on the chip, and none in the DDR
    """

    network: Network
    shape: Shape
    stages: tuple[Stage, ...]
    resident: dict[Store, list[int]]
    rings: set[Store]

    def in_ddr(self, store: Store) -> bool:
        """Whether a store has a place in the DDR."""
        network = self.network
        if store in network.constants or store in self.rings:
            return False
        if store in network.inputs.values() or store in network.outputs.values():
            return True
        on_chip = set(self.resident.get(store, []))
        return store not in self.resident or any(
            place not in on_chip for place, _ in network.readers[store]
        )
