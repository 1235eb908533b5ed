"""The pass between layers and instructions: what stays on the chip, and where.

A map stays on the chip from its producer to its last reader, if the banks have room for it all that
time. Otherwise, if only the next layer reads it, the two form a stage: they are computed
alternately, tile by tile, and a ring of rows is enough. Otherwise its producer saves its rows to
the DDR, through a ring, and each reader loads them again. If a stage finds no room, the map that
takes the most of it is given up for its last reader, and planning starts again. A stage whose rows
are too long even for empty banks is computed in strips of columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from tutelage.dpu.compiler.board.extent import (
    cost_of_column,
    fit_together,
    is_plain,
    output_groups,
    phase_of,
    reaches_tiles,
    result_size,
    ring_slots,
    saves_of,
    walk_alike,
    whole_walk,
)
from tutelage.dpu.compiler.board.layout import Banks, ChipMap, slots_for
from tutelage.dpu.compiler.board.network import Network, Node, Store, View
from tutelage.dpu.compiler.board.split import split_channels
from tutelage.dpu.compiler.board.stages import (
    MAX_CHIP_STRIDE,
    MAX_JUMP,
    MAX_LENGTH,
    WHOLE,
    Operand,
    Plan,
    Result,
    Stage,
    Strip,
)
from tutelage.dpu.compiler.board.walk import Feed, Walk, columns, dilated, feed, walk_of
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


class _Again(Exception):
    """A decision was changed: planning must start again."""


class _NoRoom(Exception):
    """The banks are full.

    Attributes
    ----------
    store : the store that found no room; None for a ring of rows
    """

    def __init__(self, store: Store | None) -> None:
        super().__init__()
        self.store = store


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
    planner = _Planner(split_channels(network, shape, room), shape, room)
    while True:
        try:
            return planner.plan()
        except _Again:
            pass
        except _NoRoom as full:
            planner.give_up(full.store)


@dataclass
class _Planner:
    """The decisions so far.

    Attributes
    ----------
    stride : row stride of stores that may stay on the chip
    readers : for stores that stay, the nodes that read them there
    rings : stores that are only rings
    strips : number of strips of a stage, by its first node, if there are several
    """

    network: Network
    shape: Shape
    room: int
    stride: dict[Store, int] = field(default_factory=dict)
    readers: dict[Store, list[int]] = field(default_factory=dict)
    rings: set[Store] = field(default_factory=set)
    strips: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._never_rings: set[Store] = set()
        self._apart: set[int] = set()  # nodes that begin a stage
        for node in self.network.nodes:
            node.layer = self._tall(node)
        for store in self.network.stores:
            if self._may_stay(store):
                self.stride[store] = self._stride_for(store)
                readers = dict.fromkeys(place for place, _ in self.network.readers[store])
                found = [p for p in readers if self._reads_there(store, p)]
                if found:
                    self.readers[store] = found
                    self._shrink(store)
                else:
                    self._end(store)

    def _tall(self, node: Node) -> EngineLayer:
        """Increase the stride of a layer with one output row until all rows can be addressed."""
        layer, banks = node.layer, self.shape.array.rows
        if not isinstance(layer, WindowLayer) or layer.output[0] != 1:
            return layer
        while not reaches_tiles(walk_of(layer, node.inputs[0]), 1, banks):
            layer = replace(layer, stride=(layer.stride[0] + 1, layer.stride[1]))
        return layer

    # -- what may stay -----------------------------------------------------------------------

    def _may_stay(self, store: Store) -> bool:
        if store in self.network.inputs.values() or store in self.network.constants:
            return False
        writers = [self.network.nodes[place] for place in self.network.writers[store]]
        return bool(writers) and all(
            node.outputs[0].store is store
            and node.outputs[0].on_chip
            and sum(view.store is store for view in node.outputs) == 1
            and is_plain(node)
            for node in writers
        )

    def _shrink(self, store: Store) -> None:
        """Drop the last readers of a store until the part that the others read fits the banks: in a
        dense block, the layers that read the most of it."""
        while store in self.readers and (
            self._words(store) > self.room or self._groups_kept(store) > MAX_JUMP
        ):
            self._drop(store, max(self.readers[store]))

    def _kept(self, store: Store) -> int:
        """Return how many of a store's channels are on the chip: the first results, up to the last
        one that is read there."""
        nodes = self.network.nodes
        read = [v for p in self.readers[store] for v in nodes[p].inputs if v.store is store]
        end = max(view.first + view.channels for view in read)
        written = [nodes[place].outputs[0] for place in self.network.writers[store]]
        return max(view.first + view.channels for view in written if view.first < end)

    def _groups_kept(self, store: Store) -> int:
        return store.groups_before(self._kept(store), self.shape.width)

    def _keeps(self, view: View) -> bool:
        """Return whether a result is written to its store on the chip."""
        return view.store in self.readers and view.first < self._kept(view.store)

    def _stride_for(self, store: Store) -> int:
        """Return the most frequent stride of a store's readers."""
        layers = [self.network.nodes[place].layer for place, _ in self.network.readers[store]]
        strides = [layer.stride[0] for layer in layers if isinstance(layer, WindowLayer)]
        found = Counter(strides).most_common(1)
        return found[0][0] if found and found[0][0] <= MAX_CHIP_STRIDE else 1

    def _reads_there(self, store: Store, place: int) -> bool:
        """Return whether a node can read a store on the chip, in all its operands."""
        node = self.network.nodes[place]
        views = [view for view in node.inputs if view.store is store]
        if not all(view.on_chip for view in views) or not is_plain(node):
            return False
        if isinstance(node.layer, EltwiseLayer):
            return all(self._is_dense(view) for view in views)
        assert isinstance(node.layer, WindowLayer)
        if views[0] is not node.inputs[0] or len(views) > 1:
            return False
        if node.layer.stride[0] != self.stride[store]:
            return False
        return isinstance(node.layer, ConvLayer) or self._is_dense(views[0])

    def _is_dense(self, view: View) -> bool:
        """Return whether the channels of a view are contiguous on the chip."""
        return all(channel == lane for channel, lane in view.lanes(self.shape.width))

    # -- stages ------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Assign every map its location.

        Raises
        ------
        _NoRoom, _Again
            There is no room for a map, or a decision was changed.
        """
        self._banks = Banks(self.shape, self.room)
        self._chips: dict[Store, ChipMap] = {}
        stages = []
        for places in self._groups():
            self._first, self._place = places[0], places[-1]
            nodes = tuple(self.network.nodes[place] for place in places)
            stages.append(Stage(nodes, tuple(self._strips(places))))
            self._free_stores()
        return Plan(self.network, self.shape, tuple(stages), dict(self.readers), set(self.rings))

    def _groups(self) -> Iterator[list[int]]:
        """Yield the nodes of each stage."""
        group: list[int] = []
        for place, node in enumerate(self.network.nodes):
            group.append(place)
            if node.outputs[0].store in self.rings or self._joins(group, place + 1):
                continue
            yield group
            group = []

    def _joins(self, group: list[int], place: int) -> bool:
        """Return whether a node reads the same map from the DDR as a group, in the same way."""
        nodes = self.network.nodes
        if place == len(nodes) or place in self._apart:
            return False
        return self._are_siblings([*group, place])

    def _are_siblings(self, places: list[int]) -> bool:
        nodes = [self.network.nodes[place] for place in places]
        view = nodes[0].inputs[0]
        return fit_together(nodes, self.shape.width) and all(
            isinstance(node.layer, ConvLayer)
            and node.layer.dilation == (1, 1)
            and node.inputs[0] == view
            and walk_alike(node.layer, nodes[0].layer)
            and not self._is_on_chip(view.store, place)
            and view.store not in self.rings
            and node.outputs[0].store not in self.rings
            for place, node in zip(places, nodes, strict=True)
        )

    def _free_stores(self) -> None:
        for store in list(self._chips):
            writers = [
                place
                for place in self.network.writers[store]
                if self._keeps(self.network.nodes[place].outputs[0])
            ]
            if max([*self.readers[store], *writers]) <= self._place:
                self._banks.free(store)

    def _strips(self, places: list[int]) -> Iterator[tuple[Strip, ...]]:
        nodes = [self.network.nodes[place] for place in places]
        last = nodes[-1]
        if not isinstance(last.layer, WindowLayer | EltwiseLayer):
            yield (self._copy(last),)
            return
        if isinstance(last.layer, WindowLayer) and last.layer.dilation != (1, 1):
            yield from self._dilated(places[-1], last, last.layer)
            return
        _, width = result_size(last)
        count = max(self.strips[self._first], -(-width // MAX_LENGTH))
        if count > 1 and not self._all_in_ddr(places):
            self._split(places)
            self._to_ddr(places)
            raise _Again
        each = -(-width // count)
        siblings = len(places) > 1 and self._are_siblings(places)
        for first in range(0, width, each):
            columns_ = min(each, width - first)
            if siblings:
                yield self._sibling_strip(places, first, columns_, count > 1)
            else:
                yield tuple(self._strip(places, first, columns_, count > 1))
            self._free_rings()

    def _free_rings(self) -> None:
        for taken in self._banks.taken:
            for owner in [owner for owner in taken if not isinstance(owner, Store)]:
                del taken[owner]

    def _all_in_ddr(self, places: list[int]) -> bool:
        """Return whether a stage reads and writes whole maps only in the DDR."""
        nodes = [self.network.nodes[place] for place in places]
        read = any(
            self._is_on_chip(view.store, place)
            for place, node in zip(places, nodes, strict=True)
            for view in node.inputs
        )
        return not read and not any(self._keeps(node.outputs[0]) for node in nodes)

    def _to_ddr(self, places: list[int]) -> None:
        for place in places:
            for view in self.network.nodes[place].inputs:
                self._drop(view.store, place)
            self._drop(self.network.nodes[place].outputs[0].store, None)

    def _strip(self, places: list[int], first: int, count: int, several: bool) -> Iterator[Strip]:
        """Yield a strip of columns of the last layer, and the strips of earlier layers it needs."""
        wanted: list[tuple[int, int, int, Walk | None, Feed | None]] = []
        for place in reversed(places):
            wanted.append((place, first, count, *self._walk(place, first, count, several)))
            walk, node = wanted[-1][3], self.network.nodes[place]
            if several and walk is not None:
                first, count = whole_walk(node).columns(first, count)[1], walk.size[1]
            elif not several:
                count = node.inputs[0].width
        before: Result | None = None
        for place, first, count, walk, fed in reversed(wanted):
            node = self.network.nodes[place]
            height, _ = result_size(node)
            result = self._result(place, node, height, count)
            operands = self._operands(place, node, walk, fed, first, count, before, result)
            tile = self._tile(node, walk)
            yield Strip(tuple(operands), walk, result, height, first, count, tile)
            before = result

    def _sibling_strip(
        self, places: list[int], first: int, count: int, several: bool
    ) -> tuple[Strip, ...]:
        """Return the strips of layers that read the same rows, which are loaded once.

        Raises
        ------
        _Again
            They cannot share rows: the last one gets a separate stage.
        """
        ways = [self._walk(place, first, count, several) for place in places]
        walks = [walk for walk, _ in ways if walk is not None]
        if any(way[1] != ways[0][1] for way in ways) or (
            len({result_size(self.network.nodes[place])[1] for place in places}) > 1 and several
        ):
            self._split(places)
        strips, shared = [], None
        for place, (walk, fed) in zip(places, ways, strict=True):
            node = self.network.nodes[place]
            height, width = result_size(node)
            columns_ = count if several else width
            result = self._result(place, node, height, columns_)
            if shared is None:
                (shared,) = self._operands(place, node, walk, fed, first, columns_, None, result,
                                           walks)  # fmt: skip
            tile = self._tile(node, walk)
            strips.append(Strip((shared,), walk, result, height, first, columns_, tile))
        return tuple(strips)

    def _walk(
        self, place: int, first: int, count: int, several: bool
    ) -> tuple[Walk | None, Feed | None]:
        """Return the walk of a node with a kernel over its map, and how the map is loaded."""
        node = self.network.nodes[place]
        if not isinstance(node.layer, WindowLayer):
            return None, None
        view = node.inputs[0]
        if view.store in self.rings or self._is_on_chip(view.store, place):
            walk = walk_of(node.layer, view)
            return (walk.columns(first, count)[0] if several else walk), None
        from_input = view.store in self.network.inputs.values()
        walk, fed = feed(node.layer, view, self.shape.width, from_input)
        return columns(walk, fed, first, count) if several else (walk, fed)

    def _dilated(self, place: int, node: Node, layer: WindowLayer) -> Iterator[tuple[Strip, ...]]:
        view = node.inputs[0]
        for walk, fed, phase in dilated(layer, view):
            height, width = walk.output
            result = self._result(place, node, height, width, phase)
            operands = self._operands(place, node, walk, fed, 0, width, None, result)
            tile = self._tile(node, walk)
            yield (Strip(tuple(operands), walk, result, height, 0, width, tile),)
            self._free_rings()

    # -- places ------------------------------------------------------------------------------

    def _is_on_chip(self, store: Store, place: int) -> bool:
        return place in self.readers.get(store, [])

    def _result(
        self, place: int, node: Node, height: int, count: int, phase: Phase | None = None
    ) -> Result:
        """Return the store on the chip, or a ring of rows to save or pass to the next layer."""
        view, lanes = node.outputs[0], self.shape.width
        store, banks = view.store, self.shape.array.rows
        phase = phase or phase_of(node)
        groups = output_groups(node, lanes)
        if store in self.rings:
            reader = self.network.nodes[place + 1]
            stride, least = 1, 1
            if isinstance(reader.layer, WindowLayer):
                walk = walk_of(reader.layer, view)
                stride = walk.stride[0]
                produced = self._tile(node, self._whole_walk(node))
                least = ring_slots([walk], self._tile(reader, walk), banks, produced)
            chip = self._ring(("result", place), height, least, stride, count, groups, None)
            return Result(chip, 0, saves_of(node, node.outputs[1:], phase, lanes))
        if self._keeps(view):
            if store not in self._chips:
                stride = self.stride[store]
                total = self._groups_kept(store)
                slots = slots_for(store.height, stride, banks)
                self._chips[store] = self._take(store, slots, stride, store.width, total, None)
            saved = [v for v in node.outputs[1:] if v.store is not store]
            if self._is_saved(store):
                saved.insert(0, view)
            group = store.groups_before(view.first, lanes)
            places = saves_of(node, saved, WHOLE, lanes)
            return Result(self._chips[store], group, places, stays=True)
        away = self._read_group(place, node)
        chip = self._ring(("result", place), height, 1, 1, count, groups, away)
        return Result(chip, 0, saves_of(node, node.outputs, phase, lanes))

    def _is_saved(self, store: Store) -> bool:
        if store in self.network.outputs.values():
            return True
        readers = {place for place, _ in self.network.readers[store]}
        return not readers <= set(self.readers[store])

    def _read_group(self, place: int, node: Node) -> int | None:
        """Return the bank group of a map that a node reads on the chip, or None."""
        for view in node.inputs:
            if self._is_on_chip(view.store, place):
                return self._chips[view.store].bank // self.shape.array.rows
        return None

    def _operands(
        self, place: int, node: Node, walk: Walk | None, fed: Feed | None, first: int, count: int,
        before: Result | None, result: Result, walks: Sequence[Walk] = (),
    ) -> Iterator[Operand]:  # fmt: skip
        away = result.chip.bank // self.shape.array.rows
        views = node.inputs[:1] if walk is not None else node.inputs
        for number, view in enumerate(views):
            groups, dense = -(-view.channels // self.shape.width), ((0, 0),)
            if view.store in self.rings:
                assert before is not None
                yield Operand(before.chip, 0, groups, dense, view.channels, ring=True)
                continue
            if self._is_on_chip(view.store, place):
                yield self._resident(view)
                continue
            source, rows, least, stride = fed, view.height, 1, 1
            if walk is None:
                source = Feed(view, count, column=first)
            else:
                rows, stride = walk.size[0], walk.stride[0]
                tile = self._tile(node, walk)
                least = ring_slots(walks or [walk], tile, self.shape.array.rows, 1)
            assert source is not None
            if max(source.columns, count) > MAX_LENGTH:
                self._more_strips()
            groups = -(-source.channels // self.shape.width)
            chip = self._ring(
                ("operand", place, number), rows, least, stride, source.columns, groups, away
            )
            yield Operand(chip, 0, groups, dense, source.channels, source)

    def _tile(self, node: Node, walk: Walk | None) -> int:
        """Return the result rows computed at a time: the engine's, if it can address all inputs.

        Raises
        ------
        Refusal
            A kernel has more rows than an instruction can address.
        """
        rows = self.shape.alu_rows if isinstance(node.layer, AluLayer) else self.shape.array.rows
        while walk is not None and rows and not reaches_tiles(walk, rows, self.shape.array.rows):
            rows //= 2
        if not rows:
            height = walk.kernel[0] if walk else 0
            raise Refusal(f"a kernel of {height} rows is too large", node.name)
        return rows

    def _whole_walk(self, node: Node) -> Walk | None:
        return whole_walk(node) if isinstance(node.layer, WindowLayer) else None

    def _copy(self, node: Node) -> Strip:
        """Return the strip of a copy, which needs a ring of rows of the smaller map."""
        view = node.inputs[0]
        if view.width > MAX_LENGTH:
            raise Refusal(f"rows of {view.width} pixels exceed {MAX_LENGTH}", node.name)
        groups = -(-view.channels // self.shape.width)
        chip = self._ring("copy", view.height, 1, 1, view.width, groups, None)
        self._free_rings()
        fed = Feed(view, view.width)
        operand = Operand(chip, 0, groups, ((0, 0),), view.channels, fed)
        return Strip((operand,), None, None, view.height, 0, view.width)

    def _resident(self, view: View) -> Operand:
        lanes = self.shape.width
        chip = self._chips[view.store]
        group = view.store.groups_before(view.first, lanes)
        return Operand(chip, group, view.groups(lanes), tuple(view.lanes(lanes)), view.channels)

    def _ring(
        self, owner: object, rows: int, least: int, stride: int, width: int, groups: int,
        away_from: int | None,
    ) -> ChipMap:  # fmt: skip
        """Allocate a ring with one slot more than necessary, if there is room."""
        most = slots_for(rows, stride, self.shape.array.rows)
        least = min(least, most)
        if stride > 1 and width * groups > MAX_JUMP:
            self._more_strips()
        for slots in range(min(least + 1, most), least - 1, -1):
            try:
                return self._take(owner, slots, stride, width, groups, away_from)
            except _NoRoom:
                pass
        if least * stride * width * groups > self.room or self._is_alone():
            self._more_strips()
        raise _NoRoom(None)

    def _is_alone(self) -> bool:
        """Return whether only the stage's own rings are on the chip."""
        taken = [owner for group in self._banks.taken for owner in group]
        return not any(isinstance(owner, Store) for owner in taken)

    def _more_strips(self) -> None:
        places = list(range(self._first, self._place + 1))
        _, width = result_size(self.network.nodes[self._place])
        count = max(1, self.strips[self._first], -(-width // MAX_LENGTH)) + 1
        if count > width or self._repeated(places, count) > MOST_REPEATED:
            self._split(places)
            node = self.network.nodes[self._place]
            raise Refusal("the rows do not fit the DPU's banks", node.name)
        self.strips[self._first] = count
        raise _Again

    def _repeated(self, places: list[int], count: int) -> float:
        """Return the fraction of a stage's work that is repeated in columns shared by strips."""
        if self._are_siblings(places):
            return 0.0
        done = whole = 0.0
        _, width = result_size(self.network.nodes[places[-1]])
        each = -(-width // count)
        for begin in range(0, width, each):
            first, columns_ = begin, min(each, width - begin)
            for place in reversed(places):
                node = self.network.nodes[place]
                cost = cost_of_column(node, self.shape.width)
                done += cost * columns_
                whole += cost * result_size(node)[1] * (begin == 0)
                if isinstance(node.layer, WindowLayer):
                    part, first = whole_walk(node).columns(first, columns_)
                    columns_ = part.size[1]
        return done / whole - 1

    def _split(self, places: list[int]) -> None:
        """Split a stage at its smallest inner map, which is then saved and loaded again.

        Raises
        ------
        _Again
            There was such a map.
        """
        if len(places) > 1 and self._are_siblings(places):
            self._apart.add(places[-1])
            raise _Again
        inner = [self.network.nodes[place].outputs[0].store for place in places[:-1]]
        if inner:
            store = min(inner, key=lambda store: (store.size, store.name))
            self.rings.discard(store)
            self._never_rings.add(store)
            self.strips.clear()
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
        """Give up the map that takes the most of the chip, for its last reader.

        Parameters
        ----------
        wanted : the store that found no room; None for a ring of rows
        """
        taken = [owner for group in self._banks.taken for owner in group]
        stores = [owner for owner in taken if isinstance(owner, Store)]
        if wanted is not None:
            stores.append(wanted)
        store = max(stores, key=lambda store: (self._cost(store), store.name))
        before = self._words(store)
        self._drop(store, max(self.readers[store]))
        # A dense block has many readers, each of slightly more channels than the one before.
        while 0 < before - self._rest(store) < self.room // LEAST_FREED:
            self._drop(store, max(self.readers[store]))

    def _rest(self, store: Store) -> int:
        """Return the bank rows that a store still takes; 0 if it does not stay."""
        return self._words(store) if store in self.readers else 0

    def _cost(self, store: Store) -> int:
        """Return the benefit of giving up a store: bank rows times layers with them in use."""
        return self._words(store) * (max(self.readers[store]) - self._place + 1)

    def _words(self, store: Store) -> int:
        stride = self.stride[store]
        slots = slots_for(store.height, stride, self.shape.array.rows)
        return slots * stride * store.width * self._groups_kept(store)

    def _drop(self, store: Store, place: int | None) -> None:
        """Make one reader of a store, or all, read it in the DDR."""
        if store not in self.readers:
            return
        left = [] if place is None else [p for p in self.readers[store] if p != place]
        if left:
            self.readers[store] = left
        else:
            del self.readers[store]
            self._end(store)

    def _end(self, store: Store) -> None:
        """Make a store that does not stay a ring, if possible."""
        if store not in self._never_rings and self._may_be_ring(store):
            self.rings.add(store)

    def _may_be_ring(self, store: Store) -> bool:
        """Return whether only the next layer reads it, row by row, and the weights of both fit."""
        network = self.network
        if store in network.outputs.values() or store in network.inputs.values():
            return False
        if len(store.parts) > 1 or len(network.writers[store]) != 1:
            return False
        (place,) = network.writers[store]
        if [reader for reader, _ in network.readers[store]] != [place + 1]:
            return False
        writer, reader = network.nodes[place], network.nodes[place + 1]
        if not (is_plain(writer) and is_plain(reader)):
            return False
        if not next(view for view in reader.inputs if view.store is store).on_chip:
            return False
        if isinstance(reader.layer, WindowLayer) and (
            reader.inputs[0].store is not store or reader.layer.stride[0] > MAX_CHIP_STRIDE
        ):
            return False
        return self._constants_fit(place)

    def _constants_fit(self, place: int) -> bool:
        """Return whether all constants fit if a node and the next are in one stage."""
        first, last = place, place + 1
        nodes = self.network.nodes
        while first and nodes[first - 1].outputs[0].store in self.rings:
            first -= 1
        while nodes[last].outputs[0].store in self.rings:
            last += 1
        return fit_together(nodes[first : last + 1], self.shape.width)


LEAST_FREED = 16
"""Shrinking a store frees at least 1 / LEAST_FREED of a bank, so that planning ends soon."""

MOST_REPEATED = 0.01
"""Fraction of a stage's work that may be repeated to keep a map out of the DDR."""
