"""The memory of a subgraph's layers: a store for each map, or for the maps that a concat joins.

The inputs of a concat are written by their producers to their places in one store, and a reshape is
another view of the same bytes, so neither needs a copy.
"""

from __future__ import annotations

from collections.abc import Mapping

from tutelage.core.fixed_point import Array
from tutelage.dpu.compiler.board.layers import Form, Layers, map_dims
from tutelage.dpu.compiler.board.network import Network, Node, Store, View
from tutelage.dpu.ops.engine_layers import EltwiseLayer, EngineLayer
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.xmodel.subgraph import Subgraph


def network_of(subgraph: Subgraph, constants: Mapping[str, Array]) -> Network:
    """Return the layers of a DPU subgraph and their memory.

    Parameters
    ----------
    constants : int8 values of its parameters, by op name

    Raises
    ------
    Refusal
        An op has no instructions.
    """
    return _Stores(Layers(subgraph, constants)).network()


class _Stores:
    """The stores so far.

    Parameters
    ----------
    given : the layers, and what the ops' values consist of
    """

    def __init__(self, given: Layers) -> None:
        self._given = given
        self._stores: list[Store] = []
        self._homes: dict[str, list[View]] = {}  # all views of a leaf
        self._by_leaves: dict[tuple[str, ...], View] = {}
        self._flat: dict[tuple[str, ...], View] = {}  # values joined end to end, by `_flat_key`

    def network(self) -> Network:
        given, outputs = self._given, self._place()
        nodes = [self._node(layer) for layer in given.layers]
        inputs = {name: self._homes[name][0].store for name in given.uploads}
        copies = [node for name in given.uploads for node in self._copies(name)]
        operands = {self._homes[name][0].store: given.values[name] for name in given.values}
        views = {name: homes[0] for name, homes in self._homes.items()}
        joined = {n: self._by_leaves.get(form.leaves) for n, form in given.forms.items()}
        views |= {n: view for n, view in joined.items() if view is not None and n not in views}
        return Network([*copies, *nodes], self._stores, inputs, outputs, operands, views)

    def _place(self) -> dict[str, Store]:
        """Create the stores; return those of outputs, by download."""
        given = self._given
        for name in (*given.uploads, *given.values):  # they have separate stores
            self._own_store((name,))
        read = {name: given.forms[name] for layer in given.layers for name in layer.reads}
        lists = dict.fromkeys(form.leaves for form in (*read.values(), *given.downloads.values()))
        for leaves in sorted(filter(None, lists), key=len, reverse=True):
            if len(leaves) > 1 and leaves not in self._by_leaves:
                self._share(leaves)
        for name, form in read.items():
            if form.joined:
                self._end_to_end(name, form)
        for leaves in lists:
            if len(leaves) == 1 and leaves not in self._by_leaves:
                self._own_store(leaves)
        outputs = {name: self._output(name, form) for name, form in given.downloads.items()}
        for layer in given.layers:
            if layer.op not in self._homes:
                self._own_store((layer.op,))
        return outputs

    # -- maps --------------------------------------------------------------------------------

    def _share(self, leaves: tuple[str, ...]) -> None:
        """Create a store of concatenated maps, or find them adjacent in an existing one."""
        for known, view in list(self._by_leaves.items()):
            for start in range(len(known) - len(leaves) + 1):
                if known[start : start + len(leaves)] == leaves:
                    first = sum(self._given.dims[leaf][3] for leaf in known[:start])
                    self._by_leaves[leaves] = self._view_of(view.store, leaves, first)
                    return
        self._own_store(leaves)

    def _own_store(self, leaves: tuple[str, ...]) -> None:
        """Create a store for maps concatenated by channels, or for one value of any shape."""
        dims = [map_dims(self._given.dims[leaf], leaf) for leaf in leaves]
        height, width, _ = dims[0]
        channels = [d[2] for d in dims]
        firsts = tuple(sum(channels[:n]) for n in range(len(leaves)))
        store = Store(leaves[-1], height, width, sum(channels), firsts)
        self._stores.append(store)
        self._by_leaves.setdefault(leaves, self._view_of(store, leaves, 0))
        for leaf, first in zip(leaves, firsts, strict=True):
            view = self._view_of(store, (leaf,), first)
            self._homes.setdefault(leaf, []).append(view)
            self._by_leaves.setdefault((leaf,), view)

    def _view_of(self, store: Store, leaves: tuple[str, ...], first: int) -> View:
        channels = sum(map_dims(self._given.dims[leaf], leaf)[2] for leaf in leaves)
        row = store.width * store.channels
        return View(store, first, store.height, store.width, channels, row, store.channels)

    # -- values joined end to end ------------------------------------------------------------

    def _end_to_end(self, name: str, form: Form) -> View:
        """Create or find a store of values joined end to end, for the op of this name."""
        key = _flat_key(form)
        if key in self._flat:
            return self._flat[key]
        store = Store(name, 1, 1, form.size, (0,))
        self._stores.append(store)
        self._flat[key] = View(store, 0, 1, 1, form.size, form.size, form.size, False)
        first = 0
        for part in form.joined:
            if not part.leaves:
                raise Refusal("concat of a concat end to end is not supported", store.name)
            self._lay(store, first, part)
            first += part.size
        return self._flat[key]

    def _lay(self, store: Store, first: int, form: Form) -> None:
        """Add a location in a store, from byte `first`, to each map of a value."""
        dims = [map_dims(self._given.dims[leaf], leaf) for leaf in form.leaves]
        pixel = sum(d[2] for d in dims)
        for leaf, (height, width, channels) in zip(form.leaves, dims, strict=True):
            view = View(store, first, height, width, channels, width * pixel, pixel, False)
            self._homes.setdefault(leaf, []).append(view)
            first += channels

    # -- inputs and outputs ------------------------------------------------------------------

    def _output(self, name: str, form: Form) -> Store:
        """Return the store of an output, which is compact and not an input's."""
        if form.joined:
            return self._end_to_end(name, form).store
        view = self._by_leaves.get(form.leaves)
        if view is not None and view.store.size == form.size and not self._is_input(view.store):
            return view.store
        store = Store(name, 1, 1, form.size, (0,))
        self._stores.append(store)
        self._lay(store, 0, form)
        return store

    def _is_input(self, store: Store) -> bool:
        given = (*self._given.uploads, *self._given.values)
        return any(self._homes[name][0].store is store for name in given)

    def _copies(self, name: str) -> list[Node]:
        """Return nodes that copy an input to the concats that contain it."""
        first, *others = self._homes[name]
        if not others:
            return []
        return [Node(EltwiseLayer(f"{name}:copy", (name,)), [first], others)]

    # -- layers ------------------------------------------------------------------------------

    def _node(self, layer: EngineLayer) -> Node:
        inputs = [self._read(name, layer.op) for name in layer.reads]
        return Node(layer, inputs, self._homes[layer.op])

    def _read(self, name: str, reader: str) -> View:
        """Return the view of an op's value in the shape that a reader expects."""
        form = self._given.forms[name]
        view = self._end_to_end(name, form) if form.joined else self._by_leaves[form.leaves]
        height, width, channels = map_dims(form.dims, reader)
        if (height, width, channels) == (view.height, view.width, view.channels):
            return view
        whole = view.store.channels == view.channels
        if not whole:
            raise Refusal("a part of a concat is read in another shape", name)
        row, start = width * channels, view.first
        return View(view.store, start, height, width, channels, row, channels, False)


def _flat_key(form: Form) -> tuple[str, ...]:
    """Return the leaves of each part of a value joined end to end."""
    return tuple(leaf for part in form.joined for leaf in ("", *part.leaves))
