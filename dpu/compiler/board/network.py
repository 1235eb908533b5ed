"""The first pass: a DPU subgraph as layers and their shared memory.

Ops without instructions are resolved: a reshape is another view of the same bytes, and the inputs
of a concat are written by their producers to their places in one store.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.dpu.ops.engine_layers import (
    AluLayer,
    BlocksLayer,
    ConvLayer,
    EltwiseLayer,
    EngineLayer,
    Phase,
    spread_taps,
)
from tutelage.dpu.ops.int8 import fix_point
from tutelage.dpu.ops.limits import MAX_KERNEL
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.ops.registry import type_of
from tutelage.dpu.xmodel.op import Op
from tutelage.dpu.xmodel.subgraph import Subgraph


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


@dataclass(frozen=True)
class _Form:
    """Composition of an op's value: computed values (leaves) joined by channels or end to end."""

    dims: tuple[int, ...]
    leaves: tuple[str, ...] = ()
    joined: tuple[_Form, ...] = ()

    @property
    def size(self) -> int:
        return math.prod(self.dims)


def network_of(subgraph: Subgraph, constants: Mapping[str, Array]) -> Network:
    """Return the layers of a DPU subgraph.

    Parameters
    ----------
    constants : int8 values of its parameters, by op name

    Raises
    ------
    Refusal
        An op has no instructions.
    """
    return _Builder(subgraph, constants).build()


class _Builder:
    def __init__(self, subgraph: Subgraph, constants: Mapping[str, Array]) -> None:
        self._ops, self._constants = subgraph.toposort(), constants
        self._forms: dict[str, _Form] = {}
        self._dims: dict[str, tuple[int, ...]] = {}  # of leaves
        self._values: dict[str, Array] = {}  # of constant operands
        self._layers: list[EngineLayer] = []
        self._uploads: list[str] = []
        self._downloads: dict[str, _Form] = {}
        self._stores: list[Store] = []
        self._homes: dict[str, list[View]] = {}
        self._by_leaves: dict[tuple[str, ...], View] = {}
        self._flat: dict[tuple[str, ...], View] = {}  # joined end to end

    def build(self) -> Network:
        for op in self._ops:
            self._add(op)
        self._save_blocks_at_once()
        for layer in self._layers:
            if isinstance(layer, BlocksLayer) and not layer.channels_last:
                raise Refusal("the pixel shuffle cannot be saved by a convolution", layer.op)
        self._layers = [self._over_map(layer) for layer in self._layers]
        outputs = self._place()
        nodes = [self._node(layer) for layer in self._layers]
        inputs = {name: self._homes[name][0].store for name in self._uploads}
        copies = [node for name in self._uploads for node in self._copies(name)]
        operands = {self._homes[name][0].store: self._values[name] for name in self._values}
        views = {name: homes[0] for name, homes in self._homes.items()}
        joined = {n: self._by_leaves.get(form.leaves) for n, form in self._forms.items()}
        views |= {n: view for n, view in joined.items() if view is not None and n not in views}
        return Network([*copies, *nodes], self._stores, inputs, outputs, operands, views)

    # -- ops ---------------------------------------------------------------------------------

    def _add(self, op: Op) -> None:
        name, kind = op.get_name(), type_of(op)
        dims = tuple(op.get_output_tensor().dims)
        if kind.source == "constant":
            return
        if op.get_type() == "upload":
            self._uploads.append(name)
            self._leaf(name, dims)
        elif op.get_type() == "download":
            copied = op.get_input_op("input")
            if copied.get_type() == "upload":
                raise Refusal("an input is also an output", name)
            self._downloads[name] = self._forms[copied.get_name()]
        elif kind.joins:
            self._forms[name] = self._joined(op, dims)
        elif kind.same_order and kind.free:
            source = self._forms[op.get_input_op("input").get_name()]
            self._forms[name] = _Form(dims, source.leaves, source.joined)
        else:
            self._add_layers(op, dims)

    def _add_layers(self, op: Op, dims: tuple[int, ...]) -> None:
        try:
            layers = type_of(op).engine_layers(op, self._constants)
        except Refusal as reason:
            raise Refusal(str(reason), op.get_name()) from None
        for layer in layers:
            for name in layer.inputs:
                if name in self._constants and name not in self._values:
                    self._values[name] = np.broadcast_to(self._constants[name], dims)
                    self._leaf(name, dims)
        self._layers += layers
        self._leaf(op.get_name(), dims)

    def _leaf(self, name: str, dims: tuple[int, ...]) -> None:
        self._dims[name] = dims
        self._forms[name] = _Form(dims, (name,))

    def _joined(self, op: Op, dims: tuple[int, ...]) -> _Form:
        axis, sources = op.get_attr("axis") % len(dims), op.get_input_ops_by_name("input")
        parts = [self._requantised(op, source, n) for n, source in enumerate(sources)]
        leaves = tuple(leaf for part in parts for leaf in part.leaves)
        are_maps = all(part.leaves and len(part.dims) == 4 for part in parts)
        of_one_size = all(self._dims[leaf][:3] == dims[:3] for leaf in leaves)
        if axis == len(dims) - 1 == 3 and are_maps and of_one_size:
            return _Form(dims, leaves)
        if math.prod(dims[:axis]) != 1:
            what = f"concat along axis {axis} of {list(dims)}"
            raise Refusal(f"{what} is not supported", op.get_name())
        return _Form(dims, joined=tuple(p for part in parts for p in part.joined or (part,)))

    def _requantised(self, op: Op, source: Op, number: int) -> _Form:
        """Return the form of a concat's input, of a requantised copy if its fix point differs."""
        form = self._forms[source.get_name()]
        before, after = fix_point(source), fix_point(op)
        if before == after:
            return form
        if len(form.dims) != 4 or not form.leaves:
            what = "concat end to end of parts with other fix points"
            raise Refusal(f"{what} is not supported", op.get_name())
        name = f"{op.get_name()}:{number}"
        self._layers.append(EltwiseLayer(name, (source.get_name(),), shift_write=after - before))
        self._leaf(name, form.dims)
        return self._forms[name]

    def _save_blocks_at_once(self) -> None:
        """Fuse depth-to-space into a convolution that is read by nothing else."""
        by_op = {layer.op: layer for layer in self._layers}
        for layer in list(self._layers):
            if not isinstance(layer, BlocksLayer) or not layer.to_space:
                continue
            source = by_op.get(layer.inputs[0])
            readers = [other for other in self._layers if layer.inputs[0] in _reads(other)]
            forms = [*self._forms.values(), *self._downloads.values()]
            used = sum(layer.inputs[0] in form.leaves for form in forms)
            if not isinstance(source, ConvLayer) or len(readers) > 1 or used > 1:
                continue
            plain = source.phase == Phase() and source.dilation == (1, 1)
            if plain and source.side == 1:
                fused = _blocks_last(source, layer)
                self._layers[self._layers.index(source)] = fused
                self._layers.remove(layer)

    def _over_map(self, layer: EngineLayer) -> EngineLayer:
        """Convert a dense layer over a map to a convolution with a kernel of the map's size."""
        if not isinstance(layer, ConvLayer) or layer.kernel != (1, 1) or layer.output != (1, 1):
            return layer
        form = self._forms[layer.inputs[0]]
        shape = self._map_of(form)
        if shape is None or not max(shape[:2]) <= MAX_KERNEL or shape[:2] == (1, 1):
            return layer
        height, width, channels = shape
        name = f"{layer.inputs[0]}:map"
        self._forms[name] = _Form((1, height, width, channels), form.leaves)
        weights = layer.weights.reshape(len(layer.weights), height, width, channels)
        return replace(layer, inputs=(name,), kernel=(height, width), weights=weights)

    def _map_of(self, form: _Form) -> tuple[int, int, int] | None:
        """Return height, width and channels of the map that a flattened value is, or None."""
        if not form.leaves or map_dims(form.dims) != (1, 1, form.size):
            return None
        dims = [map_dims(self._dims[leaf]) for leaf in form.leaves]
        height, width, _ = dims[0]
        channels = sum(d[2] for d in dims)
        return (height, width, channels) if height * width * channels == form.size else None

    # -- memory ------------------------------------------------------------------------------

    def _place(self) -> dict[str, Store]:
        """Create the stores; return those of outputs, by download."""
        for name in (*self._uploads, *self._values):  # they have separate stores
            self._own_store((name,))
        read = [self._forms[name] for layer in self._layers for name in _reads(layer)]
        lists = dict.fromkeys(form.leaves for form in (*read, *self._downloads.values()))
        for leaves in sorted(filter(None, lists), key=len, reverse=True):
            if len(leaves) > 1 and leaves not in self._by_leaves:
                self._share(leaves)
        for layer in self._layers:
            for name in _reads(layer):
                self._end_to_end(name, self._forms[name])
        for leaves in lists:
            if len(leaves) == 1 and leaves not in self._by_leaves:
                self._own_store(leaves)
        outputs = {name: self._output(name, form) for name, form in self._downloads.items()}
        for layer in self._layers:
            if layer.op not in self._homes:
                self._own_store((layer.op,))
        return outputs

    def _share(self, leaves: tuple[str, ...]) -> None:
        """Create a store of concatenated maps, or find them adjacent in an existing one."""
        for known, view in list(self._by_leaves.items()):
            for start in range(len(known) - len(leaves) + 1):
                if known[start : start + len(leaves)] == leaves:
                    first = sum(self._dims[leaf][3] for leaf in known[:start])
                    self._by_leaves[leaves] = self._view_of(view.store, leaves, first)
                    return
        self._own_store(leaves)

    def _own_store(self, leaves: tuple[str, ...]) -> Store:
        """Create a store for maps concatenated by channels, or for one value of any shape."""
        dims = [self._dims[leaf] for leaf in leaves]
        height, width, _ = map_dims(dims[0])
        channels = [map_dims(d)[2] for d in dims]
        firsts = tuple(sum(channels[:n]) for n in range(len(leaves)))
        store = Store(leaves[-1], height, width, sum(channels), firsts)
        self._stores.append(store)
        self._by_leaves.setdefault(leaves, self._view_of(store, leaves, 0))
        for leaf, first in zip(leaves, firsts, strict=True):
            view = self._view_of(store, (leaf,), first)
            self._homes.setdefault(leaf, []).append(view)
            self._by_leaves.setdefault((leaf,), view)
        return store

    def _view_of(self, store: Store, leaves: tuple[str, ...], first: int) -> View:
        channels = sum(map_dims(self._dims[leaf])[2] for leaf in leaves)
        row = store.width * store.channels
        return View(store, first, store.height, store.width, channels, row, store.channels)

    def _end_to_end(self, name: str, form: _Form) -> Store | None:
        """Create or find a store of values joined end to end, for the op of this name."""
        if not form.joined:
            return None
        key = tuple(leaf for part in form.joined for leaf in ("", *part.leaves))
        if key in self._flat:
            return self._flat[key].store
        store = Store(name, 1, 1, form.size, (0,))
        self._stores.append(store)
        self._flat[key] = View(store, 0, 1, 1, form.size, form.size, form.size, False)
        first = 0
        for part in form.joined:
            if not part.leaves:
                raise Refusal("concat of a concat end to end is not supported", store.name)
            self._lay(store, first, part)
            first += part.size
        return store

    def _lay(self, store: Store, first: int, form: _Form) -> None:
        """Add a location in a store, from byte `first`, to each map of a value."""
        dims = [map_dims(self._dims[leaf]) for leaf in form.leaves]
        pixel = sum(d[2] for d in dims)
        for leaf, (height, width, channels) in zip(form.leaves, dims, strict=True):
            view = View(store, first, height, width, channels, width * pixel, pixel, False)
            self._homes.setdefault(leaf, []).append(view)
            first += channels

    def _output(self, name: str, form: _Form) -> Store:
        """Return the store of an output, which is compact and not an input's."""
        joined = self._end_to_end(name, form)
        if joined is not None:
            return joined
        view = self._by_leaves.get(form.leaves)
        if view is not None and view.store.size == form.size and not self._is_input(view.store):
            return view.store
        store = Store(name, 1, 1, form.size, (0,))
        self._stores.append(store)
        self._lay(store, 0, form)
        return store

    def _is_input(self, store: Store) -> bool:
        given = (*self._uploads, *self._values)
        return any(self._homes[name][0].store is store for name in given)

    # -- layers ------------------------------------------------------------------------------

    def _node(self, layer: EngineLayer) -> Node:
        inputs = [self._read(name) for name in _reads(layer)]
        return Node(_without_rare_dilation(layer, inputs), inputs, self._homes[layer.op])

    def _read(self, name: str) -> View:
        """Return the view of an op's value in the shape that its readers expect."""
        form = self._forms[name]
        if form.joined:
            self._end_to_end(name, form)
            key = tuple(leaf for part in form.joined for leaf in ("", *part.leaves))
            view = self._flat[key]
        else:
            view = self._by_leaves[form.leaves]
        height, width, channels = map_dims(form.dims)
        if (height, width, channels) == (view.height, view.width, view.channels):
            return view
        whole = view.store.channels == view.channels
        if not whole:
            raise Refusal("a part of a concat is read in another shape", name)
        row, start = width * channels, view.first
        return View(view.store, start, height, width, channels, row, channels, False)

    def _copies(self, name: str) -> list[Node]:
        """Return nodes that copy an input to the concats that contain it."""
        first, *others = self._homes[name]
        if not others:
            return []
        return [Node(EltwiseLayer(f"{name}:copy", (name,)), [first], others)]


def _without_rare_dilation(layer: EngineLayer, inputs: Sequence[View]) -> EngineLayer:
    """Return a layer unchanged if it can be computed in phases of its dilation: stride 1, and a map
    with rows and columns of every phase. Otherwise fill its kernel with zeros."""
    if not isinstance(layer, ConvLayer | AluLayer):
        return layer
    small = inputs[0].height < layer.dilation[0] or inputs[0].width < layer.dilation[1]
    if layer.stride != (1, 1) or layer.kernel == (1, 1) or small:
        return spread_taps(layer)
    return layer


def _blocks_last(source: ConvLayer, blocks: BlocksLayer) -> ConvLayer:
    """Return a convolution that saves its channels as pixels, in the order (dy, dx, c)."""
    places = np.arange(len(source.weights))
    if not blocks.channels_last:
        places = places.reshape(-1, blocks.side**2).T.ravel()
    return replace(
        source, op=blocks.op, side=blocks.side, weights=source.weights[places],
        bias=source.bias[places],
    )  # fmt: skip


def _reads(layer: EngineLayer) -> tuple[str, ...]:
    scaled_by = getattr(layer, "scaled_by", "")
    return (*layer.inputs, scaled_by) if scaled_by else layer.inputs


def map_dims(dims: Sequence[int]) -> tuple[int, int, int]:
    """Return height, width and channels of a value; other values are a pixel or a row of pixels.

    Raises
    ------
    Refusal
        The value has a batch, or more than four axes.
    """
    if dims and dims[0] != 1:
        raise Refusal(f"batch size {dims[0]} is not supported")
    shape = [1, 1, 1, *dims[1:]][-3:]
    if len(dims) > 4:
        raise Refusal(f"tensors with {len(dims)} axes are not supported")
    return shape[0], shape[1], shape[2]
