"""The pass between layers and instructions: what stays on the chip, and where.

A map stays on the chip from its producer to its last reader, if the banks have room for it all that
time. Otherwise, if only the next layer reads it, the two form a stage: they are computed
alternately, tile by tile, and a ring of rows is enough. Otherwise its producer saves its rows to
the DDR, through a ring, and each reader loads them again. If a stage finds no room, the map that
takes the most of it is given up for its last reader, and planning starts again. A stage whose rows
are too long even for empty banks is computed in strips of columns.

residence.py decides what stays and grouping.py what forms a stage. With these decisions pieces.py
cuts each stage into strips, and placement.py assigns them rows of the banks. `plan_network` repeats
both until every stage has room.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tutelage.dpu.compiler.board.extent import reaches_tiles
from tutelage.dpu.compiler.board.grouping import Grouping
from tutelage.dpu.compiler.board.network import Network, Node
from tutelage.dpu.compiler.board.pieces import NotShared, cut_chain, cut_siblings
from tutelage.dpu.compiler.board.placement import BanksFull, Placement, RowsTooLong
from tutelage.dpu.compiler.board.residence import Residence
from tutelage.dpu.compiler.board.split import split_channels
from tutelage.dpu.compiler.board.stages import Plan, Stage, Strip
from tutelage.dpu.compiler.board.walk import walk_of
from tutelage.dpu.isa.machine import Shape
from tutelage.dpu.ops.engine_layers import EltwiseLayer, EngineLayer, WindowLayer
from tutelage.dpu.ops.limits import BANK_DEPTH


def plan_network(network: Network, shape: Shape, room: int = BANK_DEPTH) -> Plan:
    """Decide what stays on the chip, and assign every map its location.

    Parameters
    ----------
    room : rows of each bank available for maps; fewer than exist make small networks behave like
        large ones

    Raises
    ------
    Refusal
        A layer does not fit the banks at all.
    """
    network = split_channels(network, shape, room)
    for node in network.nodes:
        node.layer = _tall(node, shape)
    grouping = Grouping(Residence(network, shape, room))
    while True:
        stages = _place_stages(grouping)
        if stages is not None:
            residence = grouping.residence
            resident, rings = dict(residence.readers), set(residence.rings)
            return Plan(network, shape, tuple(stages), resident, rings)


def _tall(node: Node, shape: Shape) -> EngineLayer:
    """Increase the stride of a layer with one output row until all rows can be addressed."""
    layer = node.layer
    if not isinstance(layer, WindowLayer) or layer.output[0] != 1:
        return layer
    while not reaches_tiles(walk_of(layer, node.inputs[0]), 1, shape.array.rows):
        layer = replace(layer, stride=(layer.stride[0] + 1, layer.stride[1]))
    return layer


def _place_stages(grouping: Grouping) -> list[Stage] | None:
    """Assign every map its location, or change a decision and return None."""
    placement, stages = Placement(grouping.residence), []
    for places in grouping.stages():
        if grouping.strips(places) > 1 and not grouping.is_in_ddr(places):
            grouping.move_to_ddr(places)
            return None
        try:
            strips = tuple(_strips(grouping, placement, places))
        except BanksFull as full:
            grouping.residence.give_up(full.stores, places[-1])
        except RowsTooLong:
            grouping.add_strip(places)
        except NotShared:
            grouping.split(places)
        else:
            stages.append(Stage(tuple(grouping.nodes(places)), strips))
            placement.free_stores(places[-1])
            continue
        return None
    return stages


def _strips(
    grouping: Grouping, placement: Placement, places: list[int]
) -> Iterator[tuple[Strip, ...]]:
    """Yield the strips of a stage."""
    residence, count = grouping.residence, grouping.strips(places)
    last = residence.network.nodes[places[-1]]
    if not isinstance(last.layer, WindowLayer | EltwiseLayer):
        yield (placement.copy(last),)
    elif grouping.are_siblings(places):
        for pieces in cut_siblings(residence, places, count):
            yield placement.siblings(pieces)
    else:
        for pieces in cut_chain(residence, places, count):
            yield placement.chain(pieces)
