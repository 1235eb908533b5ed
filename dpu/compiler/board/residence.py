"""Which stores stay on the chip, for which of their readers, and which ones are only rings of rows.

At first every store stays that its writers and readers can use there. `Residence.give_up` revises
that when the banks turn out to be full. These decisions need the sizes of stores only; locations in
the banks are assigned by placement.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tutelage.dpu.compiler.board.extent import fit_together, is_plain
from tutelage.dpu.compiler.board.layout import slots_for
from tutelage.dpu.compiler.board.network import Network, Store, View
from tutelage.dpu.compiler.board.stages import MAX_CHIP_STRIDE, MAX_JUMP
from tutelage.dpu.isa.machine import Shape
from tutelage.dpu.ops.engine_layers import ConvLayer, EltwiseLayer, WindowLayer

LEAST_FREED = 16
"""Shrinking a store frees at least 1 / LEAST_FREED of a bank, so that planning ends soon."""


@dataclass
class Residence:
    """The decisions so far.

    Parameters
    ----------
    room : rows of each bank available for maps

    Attributes
    ----------
    stride : row stride of stores that may stay on the chip
    readers : for stores that stay, the nodes that read them there
    rings : stores that are only rings
    """

    network: Network
    shape: Shape
    room: int
    stride: dict[Store, int] = field(default_factory=dict, init=False)
    readers: dict[Store, list[int]] = field(default_factory=dict, init=False)
    rings: set[Store] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._never_rings: set[Store] = set()
        for store in self.network.stores:
            if self._may_stay(store):
                self._keep(store)

    # -- queries -----------------------------------------------------------------------------

    def is_on_chip(self, store: Store, place: int) -> bool:
        """Return whether a node reads a store on the chip."""
        return place in self.readers.get(store, [])

    def is_loaded(self, store: Store, place: int) -> bool:
        """Return whether a node reads a store in the DDR."""
        return store not in self.rings and not self.is_on_chip(store, place)

    def is_saved(self, store: Store) -> bool:
        """Return whether a store that stays on the chip is in the DDR too."""
        if store in self.network.outputs.values():
            return True
        readers = {place for place, _ in self.network.readers[store]}
        return not readers <= set(self.readers[store])

    def keeps(self, view: View) -> bool:
        """Return whether a result is written to its store on the chip."""
        return view.store in self.readers and view.first < self._kept(view.store)

    def groups_kept(self, store: Store) -> int:
        """Return how many channel groups of a store are on the chip."""
        return store.groups_before(self._kept(store), self.shape.width)

    def last_use(self, store: Store) -> int:
        """Return the last node that reads or writes a store on the chip."""
        writers = [
            place
            for place in self.network.writers[store]
            if self.keeps(self.network.nodes[place].outputs[0])
        ]
        return max([*self.readers[store], *writers])

    def _kept(self, store: Store) -> int:
        """Return how many of a store's channels are on the chip: the first results, up to the last
        one that is read there."""
        nodes = self.network.nodes
        read = [v for p in self.readers[store] for v in nodes[p].inputs if v.store is store]
        end = max(view.first + view.channels for view in read)
        written = [nodes[place].outputs[0] for place in self.network.writers[store]]
        return max(view.first + view.channels for view in written if view.first < end)

    def _words(self, store: Store) -> int:
        """Return the bank rows that a store takes."""
        stride = self.stride[store]
        slots = slots_for(store.height, stride, self.shape.array.rows)
        return slots * stride * store.width * self.groups_kept(store)

    # -- the first decision ------------------------------------------------------------------

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

    def _keep(self, store: Store) -> None:
        """Keep a store on the chip for the readers that can read it there, if there are any."""
        self.stride[store] = self._stride_for(store)
        readers = dict.fromkeys(place for place, _ in self.network.readers[store])
        found = [p for p in readers if self._reads_there(store, p)]
        if found:
            self.readers[store] = found
            self._shrink(store)
        else:
            self._end(store)

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
        """Return whether the channels of a view are contiguous on the chip, from a group's first.

        A split layer may read from the middle of a group, if a part before is not whole groups.
        """
        width = self.shape.width
        part = max(first for first in view.store.parts if first <= view.first)
        aligned = (view.first - part) % width == 0
        return aligned and all(channel == lane for channel, lane in view.lanes(width))

    def _shrink(self, store: Store) -> None:
        """Drop the last readers of a store until the part that the others read fits the banks: in a
        dense block, the layers that read the most of it."""
        while store in self.readers and (
            self._words(store) > self.room or self.groups_kept(store) > MAX_JUMP
        ):
            self.drop(store, max(self.readers[store]))

    # -- revision ----------------------------------------------------------------------------

    def give_up(self, stores: Iterable[Store], place: int) -> None:
        """Give up the store that takes the most of the chip, for its last reader.

        Parameters
        ----------
        stores : stores on the chip, and one that found no room
        place : the node that found no room
        """
        cost = {  # bank rows times layers with them in use, from this node on
            store: self._words(store) * (max(self.readers[store]) - place + 1) for store in stores
        }
        store = max(cost, key=lambda store: (cost[store], store.name))
        before = self._words(store)
        self.drop(store, max(self.readers[store]))
        # A dense block has many readers, each of slightly more channels than the one before.
        while 0 < before - self._rest(store) < self.room // LEAST_FREED:
            self.drop(store, max(self.readers[store]))

    def _rest(self, store: Store) -> int:
        """Return the bank rows that a store still takes; 0 if it does not stay."""
        return self._words(store) if store in self.readers else 0

    def drop(self, store: Store, place: int | None) -> None:
        """Make one reader of a store, or all, read it in the DDR."""
        if store not in self.readers:
            return
        left = [] if place is None else [p for p in self.readers[store] if p != place]
        if left:
            self.readers[store] = left
        else:
            del self.readers[store]
            self._end(store)

    def drop_ring(self, store: Store) -> None:
        """Save and load a ring's whole store from now on."""
        self.rings.discard(store)
        self._never_rings.add(store)

    # -- rings -------------------------------------------------------------------------------

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
