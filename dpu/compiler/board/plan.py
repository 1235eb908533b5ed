"""What stays on the chip, and where: the pass between layers and instructions.

A map stays on the chip from the layer that computes it to the last one that reads it, if the banks
have room for it all that time; else the layer that computes it saves its rows to the DDR, through
a ring of rows, and each one that reads it loads them again. Where a layer finds no room, the map
that takes the most of it is given up for its last reader, and planning begins again. A layer whose
rows are too long even for empty banks is computed in strips of columns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tutelage.dpu.compiler.board.layout import Banks, ChipMap, slots_for
from tutelage.dpu.compiler.board.network import Network, Node, Store, View
from tutelage.dpu.compiler.board.walk import Feed, Walk, feed, strip, walk_of
from tutelage.dpu.isa.machine import Shape
from tutelage.dpu.ops.engine_layers import (
    ConvLayer,
    EltwiseLayer,
    Phase,
    WindowLayer,
)
from tutelage.dpu.ops.limits import BANK_DEPTH
from tutelage.dpu.ops.refusal import Refusal

MAX_CHIP_STRIDE = 4
"""Rows that share a bank in a map on the chip: `stride_out` of CONV."""

MAX_LENGTH = 1024
"""Pixels of a row that one instruction takes."""


MAX_JUMP = 1024
"""Bank rows from a row of a map to the next in the same bank: of CONV."""


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
    """

    chip: ChipMap
    group: int
    groups: int
    lanes: tuple[tuple[int, int], ...]
    channels: int
    feed: Feed | None = None


@dataclass(frozen=True)
class Result:
    """Where a layer writes.

    Attributes
    ----------
    chip : where the rows are
    group : the first of its channel groups in a pixel
    saves : the views in the DDR that get it too
    phase : of the rows and columns of the map
    """

    chip: ChipMap
    group: int
    saves: tuple[View, ...]
    phase: Phase = Phase()


@dataclass(frozen=True)
class Strip:
    """Columns of a layer's result, computed row by row.

    Attributes
    ----------
    operands : maps that it reads
    walk : of a layer with a kernel
    result : None of layers that only copy within the DDR
    column, columns : of the result's phase
    """

    operands: tuple[Operand, ...]
    walk: Walk | None
    result: Result | None
    column: int
    columns: int


@dataclass(frozen=True)
class Step:
    """A layer with its places on the chip."""

    node: Node
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class Plan:
    """Where everything is.

    Attributes
    ----------
    steps : the layers in order
    resident : stores that are on the chip, each with the nodes that read it there
    """

    network: Network
    shape: Shape
    steps: tuple[Step, ...]
    resident: dict[Store, list[int]]

    def in_ddr(self, store: Store) -> bool:
        """Whether a store has a place in the DDR."""
        network = self.network
        if store in network.constants:
            return False
        if store in network.inputs.values() or store in network.outputs.values():
            return True
        on_chip = set(self.resident.get(store, []))
        return store not in self.resident or any(
            place not in on_chip for place, _ in network.readers[store]
        )


class _Again(Exception):
    """A decision was changed: planning begins again."""


class _NoRoom(Exception):
    """The banks are full.

    Attributes
    ----------
    store : that was to come to the chip; None for a ring of rows
    """

    def __init__(self, store: Store | None) -> None:
        super().__init__()
        self.store = store


def plan_network(network: Network, shape: Shape) -> Plan:
    """Decide what stays on the chip, and give every map its place.

    Raises
    ------
    Refusal
        A layer does not fit the banks in any way.
    """
    planner = _Planner(network, shape)
    while True:
        try:
            return planner.plan()
        except _Again:
            pass
        except _NoRoom as full:
            planner.give_up(full.store)


@dataclass
class _Planner:
    network: Network
    shape: Shape
    stride: dict[Store, int] = field(default_factory=dict)
    readers: dict[Store, list[int]] = field(default_factory=dict)  # on the chip
    strips: Counter[int] = field(default_factory=Counter)  # of a node, where more than one

    def __post_init__(self) -> None:
        for store in self.network.stores:
            if self._may_stay(store):
                self.stride[store] = self._stride_for(store)
                readers = dict.fromkeys(place for place, _ in self.network.readers[store])
                self.readers[store] = [p for p in readers if self._reads_there(store, p)]
                if not self.readers[store]:
                    del self.readers[store], self.stride[store]

    # -- what may stay -----------------------------------------------------------------------

    def _may_stay(self, store: Store) -> bool:
        if store in self.network.inputs.values() or store in self.network.constants:
            return False
        writers = [self.network.nodes[place] for place in self.network.writers[store]]
        return bool(writers) and all(
            node.outputs[0].store is store
            and node.outputs[0].on_chip
            and sum(view.store is store for view in node.outputs) == 1
            and isinstance(node.layer, WindowLayer | EltwiseLayer)
            and getattr(node.layer, "phase", Phase()) == Phase()
            for node in writers
        )

    def _stride_for(self, store: Store) -> int:
        """That of most of those who read it."""
        layers = [self.network.nodes[place].layer for place, _ in self.network.readers[store]]
        strides = [layer.stride[0] for layer in layers if isinstance(layer, WindowLayer)]
        found = Counter(strides).most_common(1)
        return found[0][0] if found and found[0][0] <= MAX_CHIP_STRIDE else 1

    def _reads_there(self, store: Store, place: int) -> bool:
        """Whether a node can read a store on the chip: in all its operands."""
        node = self.network.nodes[place]
        views = [view for view in node.inputs if view.store is store]
        if not all(view.on_chip for view in views):
            return False
        if isinstance(node.layer, EltwiseLayer):
            return all(self._is_dense(view) for view in views)
        if not isinstance(node.layer, WindowLayer) or views[0] is not node.inputs[0]:
            return False
        if len(views) > 1 or node.layer.stride[0] != self.stride[store]:
            return False
        return isinstance(node.layer, ConvLayer) or self._is_dense(views[0])

    def _is_dense(self, view: View) -> bool:
        """Whether the channels of a view are next to each other on the chip."""
        return all(channel == lane for channel, lane in view.lanes(self.shape.width))

    # -- places ------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Give every map its place.

        Raises
        ------
        _NoRoom
            There is none for a map.
        """
        self._banks = Banks(self.shape)
        self._chips: dict[Store, ChipMap] = {}
        steps = []
        for place, node in enumerate(self.network.nodes):
            self._place = place
            strips = tuple(self._strips(node))
            steps.append(Step(node, strips))
            self._free(place)
        return Plan(self.network, self.shape, tuple(steps), dict(self.readers))

    def _free(self, place: int) -> None:
        for owner in ("ring", "result"):
            self._banks.free(owner)
        for number in range(8):
            self._banks.free(("ring", number))
        for store in list(self._chips):
            last = max([*self.readers[store], *self.network.writers[store]])
            if last <= place:
                self._banks.free(store)

    def _is_on_chip(self, store: Store, place: int) -> bool:
        return place in self.readers.get(store, [])

    def _strips(self, node: Node) -> Iterator[Strip]:
        if not isinstance(node.layer, WindowLayer | EltwiseLayer):
            yield self._copy(node)
            return
        height, width = _result_size(node)
        count = self.strips[self._place] or -(-width // MAX_LENGTH)
        if count > 1 and not self._all_in_ddr(node):
            self._to_ddr(node)
            raise _Again
        each = -(-width // count)
        for first in range(0, width, each):
            yield self._strip(node, height, first, min(each, width - first), count)

    def _all_in_ddr(self, node: Node) -> bool:
        read = any(self._is_on_chip(view.store, self._place) for view in node.inputs)
        return not read and node.outputs[0].store not in self.readers

    def _to_ddr(self, node: Node) -> None:
        for view in node.inputs:
            if self._is_on_chip(view.store, self._place):
                self._drop(view.store, self._place)
        self._drop(node.outputs[0].store, None)

    def _strip(self, node: Node, height: int, first: int, columns: int, count: int) -> Strip:
        result = self._result(node, height, columns)
        walk, operands = None, []
        if isinstance(node.layer, WindowLayer):
            walk, operand = self._window(node, node.layer, first, columns, count, result)
            operands.append(operand)
        else:
            for number, view in enumerate(node.inputs):
                operands.append(self._map(number, view, first, columns, result))
        for owner in ("result", *(("ring", n) for n in range(8))):
            self._banks.free(owner)
        return Strip(tuple(operands), walk, result, first, columns)

    def _result(self, node: Node, height: int, columns: int) -> Result:
        """The store on the chip, or a ring of rows that are saved."""
        view, lanes = node.outputs[0], self.shape.width
        store, banks = view.store, self.shape.array.rows
        phase = getattr(node.layer, "phase", Phase())
        if store in self.readers:
            if store not in self._chips:
                stride = self.stride[store]
                groups = store.groups_before(store.channels, lanes)
                slots = slots_for(store.height, stride, banks)
                self._chips[store] = self._take(store, slots, stride, store.width, groups, None)
            saved = [v for v in node.outputs[1:] if v.store is not store]
            if self._is_saved(store):
                saved.insert(0, view)
            group = store.groups_before(view.first, lanes)
            return Result(self._chips[store], group, tuple(saved))
        groups = -(-view.channels // lanes)
        chip = self._ring("result", height, 1, 1, columns, groups, self._read_group(node))
        return Result(chip, 0, tuple(node.outputs), phase)

    def _is_saved(self, store: Store) -> bool:
        if store in self.network.outputs.values():
            return True
        readers = {place for place, _ in self.network.readers[store]}
        return not readers <= set(self.readers[store])

    def _read_group(self, node: Node) -> int | None:
        """The bank group of what a node reads on the chip."""
        for view in node.inputs:
            if self._is_on_chip(view.store, self._place):
                return self._chips[view.store].bank // self.shape.array.rows
        return None

    def _window(
        self, node: Node, layer: WindowLayer, first: int, columns: int, count: int, result: Result
    ) -> tuple[Walk, Operand]:
        view, lanes = node.inputs[0], self.shape.width
        if self._is_on_chip(view.store, self._place):
            walk = walk_of(layer, view)
            return walk, self._resident(view)
        from_input = view.store in self.network.inputs.values() and count == 1
        walk, fed = feed(layer, view, lanes, from_input)
        if count > 1:
            walk, fed = strip(walk, fed, first, columns)
        if max(fed.columns, columns) > MAX_LENGTH:
            self._more_strips()
        groups = -(-fed.channels // lanes)
        least = _window_slots(walk, self.shape.array.rows)
        group = result.chip.bank // self.shape.array.rows
        chip = self._ring(
            ("ring", 0), walk.size[0], least, walk.stride[0], walk.size[1], groups, group
        )
        return walk, Operand(chip, 0, groups, ((0, 0),), fed.channels, fed)

    def _map(self, number: int, view: View, first: int, columns: int, result: Result) -> Operand:
        """An operand of a sum or product."""
        if self._is_on_chip(view.store, self._place):
            return self._resident(view)
        groups = -(-view.channels // self.shape.width)
        group = result.chip.bank // self.shape.array.rows
        chip = self._ring(("ring", number), view.height, 1, 1, columns, groups, group)
        fed = Feed(view, first, columns)
        return Operand(chip, 0, groups, ((0, 0),), view.channels, fed)

    def _copy(self, node: Node) -> Strip:
        """Copies load and save by themselves; they need a ring of rows of the smaller map."""
        view = node.inputs[0]
        if view.width > MAX_LENGTH:
            raise Refusal(f"{node.name}: rows of {view.width} pixels")
        groups = -(-view.channels // self.shape.width)
        chip = self._ring(("ring", 0), view.height, 1, 1, view.width, groups, None)
        self._banks.free(("ring", 0))
        operand = Operand(chip, 0, groups, ((0, 0),), view.channels, Feed(view, 0, view.width))
        return Strip((operand,), None, None, 0, view.width)

    def _resident(self, view: View) -> Operand:
        lanes = self.shape.width
        chip = self._chips[view.store]
        group = view.store.groups_before(view.first, lanes)
        return Operand(chip, group, view.groups(lanes), tuple(view.lanes(lanes)), view.channels)

    def _ring(
        self, owner: object, rows: int, least: int, stride: int, width: int, groups: int,
        away_from: int | None,
    ) -> ChipMap:  # fmt: skip
        """A ring with one slot more than is needed, if there is room."""
        most = slots_for(rows, stride, self.shape.array.rows)
        least = min(least, most)
        if stride > 1 and width * groups > MAX_JUMP:
            self._more_strips()
        for slots in range(min(least + 1, most), least - 1, -1):
            try:
                return self._take(owner, slots, stride, width, groups, away_from)
            except _NoRoom:
                pass
        if least * stride * width * groups > BANK_DEPTH or self._is_alone():
            self._more_strips()
        raise _NoRoom(None)

    def _is_alone(self) -> bool:
        """Whether only this node's own rings are on the chip."""
        taken = [owner for group in self._banks.taken for owner in group]
        return not any(isinstance(owner, Store) for owner in taken)

    def _more_strips(self) -> None:
        node = self.network.nodes[self._place]
        _, width = _result_size(node)
        count = max(1, self.strips[self._place], -(-width // MAX_LENGTH))
        if count >= width:
            raise Refusal(f"{node.name}: a pixel does not fit the banks")
        self.strips[self._place] = count + 1
        raise _Again

    def _take(
        self, owner: object, slots: int, stride: int, width: int, groups: int,
        away_from: int | None,
    ) -> ChipMap:  # fmt: skip
        banks = self.shape.array.rows
        found = self._banks.take(owner, slots * stride * width * groups, away_from)
        if found is None:
            raise _NoRoom(owner if isinstance(owner, Store) else None)
        group, base = found
        return ChipMap(group * banks, base, slots, stride, width, groups, banks)

    # -- giving up ---------------------------------------------------------------------------

    def give_up(self, wanted: Store | None) -> None:
        """Let the map that takes the most of the chip go, for the reader that comes last.

        Parameters
        ----------
        wanted : a store for which there was no room; None for a ring of rows
        """
        if wanted is not None and self._words(wanted) > BANK_DEPTH:
            self._drop(wanted, None)
            return
        taken = [owner for group in self._banks.taken for owner in group]
        stores = [owner for owner in taken if isinstance(owner, Store)]
        if wanted is not None:
            stores.append(wanted)
        store = max(stores, key=lambda store: (self._cost(store), store.name))
        self._drop(store, max(self.readers[store]))

    def _cost(self, store: Store) -> int:
        """Bank rows times the layers for which they are still taken: what giving it up frees."""
        return self._words(store) * (max(self.readers[store]) - self._place + 1)

    def _words(self, store: Store) -> int:
        groups = store.groups_before(store.channels, self.shape.width)
        stride = self.stride[store]
        slots = slots_for(store.height, stride, self.shape.array.rows)
        return slots * stride * store.width * groups

    def _drop(self, store: Store, place: int | None) -> None:
        """Let readers of a store read it in the DDR: one, or all."""
        if store not in self.readers:
            return
        left = [] if place is None else [p for p in self.readers[store] if p != place]
        if left:
            self.readers[store] = left
        else:
            del self.readers[store]


def _result_size(node: Node) -> tuple[int, int]:
    """Height and width of what a layer computes, of its phase only."""
    if isinstance(node.layer, WindowLayer):
        return node.layer.output
    return node.outputs[0].height, node.outputs[0].width


def _window_slots(walk: Walk, rows: int) -> int:
    """The slots that the rows under one tile take."""
    most, span = 1, walk.stride[0] * rows
    for first in range(0, walk.output[0], rows):
        begin, end = walk.rows(first, min(first + rows, walk.output[0]))
        if end > begin:
            most = max(most, (end - 1) // span - begin // span + 1)
    return min(most, math.ceil(walk.size[0] / span))
