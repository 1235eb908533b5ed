"""The first pass: the ops of a DPU subgraph as layers.

Ops without instructions become forms of other ops' values: a reshape is the same values in another
shape, and a concat a list of them. stores.py assigns their memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tutelage.core.fixed_point import MAX_ALIGNMENT, Array
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


@dataclass(frozen=True)
class Form:
    """Composition of an op's value: computed values (leaves) joined by channels or end to end."""

    dims: tuple[int, ...]
    leaves: tuple[str, ...] = ()
    joined: tuple[Form, ...] = ()

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    def contains(self, leaf: str) -> bool:
        return leaf in self.leaves or any(part.contains(leaf) for part in self.joined)


class Layers:
    """The layers of a DPU subgraph, and the composition of its ops' values.

    Parameters
    ----------
    constants : int8 values of its parameters, by op name

    Attributes
    ----------
    layers : layers in order of computation
    forms : composition of each op's value, by name
    dims : shape of each leaf
    values : int8 values of constant operands, which are leaves
    uploads : names of the inputs, which are leaves
    downloads : composition of each output, by name

    Raises
    ------
    Refusal
        An op has no instructions.
    """

    def __init__(self, subgraph: Subgraph, constants: Mapping[str, Array]) -> None:
        self._constants = constants
        self.layers: list[EngineLayer] = []
        self.forms: dict[str, Form] = {}
        self.dims: dict[str, tuple[int, ...]] = {}
        self.values: dict[str, Array] = {}
        self.uploads: list[str] = []
        self.downloads: dict[str, Form] = {}
        for op in subgraph.toposort():
            self._add(op)
        self._save_blocks_at_once()
        for layer in self.layers:
            if isinstance(layer, BlocksLayer) and not layer.channels_last:
                raise Refusal("the pixel shuffle cannot be saved by a convolution", layer.op)
        self.layers = [self._over_map(layer) for layer in self.layers]
        self.layers = [self._without_rare_dilation(layer) for layer in self.layers]

    def _add(self, op: Op) -> None:
        name, kind = op.get_name(), type_of(op)
        dims = tuple(op.get_output_tensor().dims)
        if kind.source == "constant":
            return
        if op.get_type() == "upload":
            self.uploads.append(name)
            self._leaf(name, dims)
        elif op.get_type() == "download":
            copied = op.get_input_op("input")
            if copied.get_type() == "upload":
                raise Refusal("an input is also an output", name)
            self.downloads[name] = self.forms[copied.get_name()]
        elif kind.joins:
            self.forms[name] = self._joined(op, dims)
        elif kind.same_order and kind.free:
            source = self.forms[op.get_input_op("input").get_name()]
            self.forms[name] = Form(dims, source.leaves, source.joined)
        else:
            self._add_layers(op, dims)

    def _add_layers(self, op: Op, dims: tuple[int, ...]) -> None:
        try:
            layers = type_of(op).engine_layers(op, self._constants)
        except Refusal as reason:
            raise Refusal(str(reason), op.get_name()) from None
        for layer in layers:
            for name in layer.inputs:
                if name in self._constants and name not in self.values:
                    self.values[name] = np.broadcast_to(self._constants[name], dims)
                    self._leaf(name, dims)
        self.layers += layers
        self._leaf(op.get_name(), dims)

    def _leaf(self, name: str, dims: tuple[int, ...]) -> None:
        self.dims[name] = dims
        self.forms[name] = Form(dims, (name,))

    # -- concats -----------------------------------------------------------------------------

    def _joined(self, op: Op, dims: tuple[int, ...]) -> Form:
        axis, sources = op.get_attr("axis") % len(dims), op.get_input_ops_by_name("input")
        parts = [self._requantised(op, source, n) for n, source in enumerate(sources)]
        leaves = tuple(leaf for part in parts for leaf in part.leaves)
        are_maps = all(part.leaves and len(part.dims) == 4 for part in parts)
        of_one_size = all(self.dims[leaf][:3] == dims[:3] for leaf in leaves)
        if axis == len(dims) - 1 == 3 and are_maps and of_one_size:
            return Form(dims, leaves)
        if math.prod(dims[:axis]) != 1:
            what = f"concat along axis {axis} of {list(dims)}"
            raise Refusal(f"{what} is not supported", op.get_name())
        return Form(dims, joined=tuple(p for part in parts for p in part.joined or (part,)))

    def _requantised(self, op: Op, source: Op, number: int) -> Form:
        """Return the form of a concat's input, of a requantised copy if its fix point differs."""
        form = self.forms[source.get_name()]
        before, after = fix_point(source), fix_point(op)
        if before == after:
            return form
        if abs(after - before) > MAX_ALIGNMENT:
            raise Refusal(f"fix points {before} to {after} are too far apart", op.get_name())
        if len(form.dims) != 4 or not form.leaves:
            what = "concat end to end of parts with other fix points"
            raise Refusal(f"{what} is not supported", op.get_name())
        name = f"{op.get_name()}:{number}"
        self.layers.append(EltwiseLayer(name, (source.get_name(),), shift_write=after - before))
        self._leaf(name, form.dims)
        return self.forms[name]

    # -- changes of layers -------------------------------------------------------------------

    def _save_blocks_at_once(self) -> None:
        """Fuse depth-to-space into a convolution that is read by nothing else."""
        by_op = {layer.op: layer for layer in self.layers}
        for layer in list(self.layers):
            if not isinstance(layer, BlocksLayer) or not layer.to_space:
                continue
            source = by_op.get(layer.inputs[0])
            readers = [other for other in self.layers if layer.inputs[0] in other.reads]
            forms = [*self.forms.values(), *self.downloads.values()]
            used = sum(form.contains(layer.inputs[0]) for form in forms)
            if not isinstance(source, ConvLayer) or len(readers) > 1 or used > 1:
                continue
            plain = source.phase == Phase() and not source.is_dilated
            if plain and source.side == 1:
                fused = _blocks_last(source, layer)
                self.layers[self.layers.index(source)] = fused
                self.layers.remove(layer)

    def _over_map(self, layer: EngineLayer) -> EngineLayer:
        """Convert a dense layer over a map to a convolution with a kernel of the map's size."""
        if not isinstance(layer, ConvLayer) or layer.kernel != (1, 1) or layer.output != (1, 1):
            return layer
        form = self.forms[layer.inputs[0]]
        shape = self._map_of(form, layer.op)
        if shape is None or not max(shape[:2]) <= MAX_KERNEL or shape[:2] == (1, 1):
            return layer
        height, width, channels = shape
        name = f"{layer.inputs[0]}:map"
        self.forms[name] = Form((1, height, width, channels), form.leaves)
        weights = layer.weights.reshape(len(layer.weights), height, width, channels)
        return replace(layer, inputs=(name,), kernel=(height, width), weights=weights)

    def _map_of(self, form: Form, reader: str) -> tuple[int, int, int] | None:
        """Return height, width and channels of the map that a flattened value is, or None."""
        if not form.leaves or map_dims(form.dims, reader) != (1, 1, form.size):
            return None
        dims = [map_dims(self.dims[leaf], leaf) for leaf in form.leaves]
        height, width, _ = dims[0]
        channels = sum(d[2] for d in dims)
        return (height, width, channels) if height * width * channels == form.size else None

    def _without_rare_dilation(self, layer: EngineLayer) -> EngineLayer:
        """Return a layer unchanged if it can be computed in phases of its dilation: stride 1, and a
        map with rows and columns of every phase. Otherwise fill its kernel with zeros."""
        if not isinstance(layer, ConvLayer | AluLayer) or not layer.is_dilated:
            return layer
        height, width, _ = map_dims(self.forms[layer.inputs[0]].dims, layer.op)
        small = height < layer.dilation[0] or width < layer.dilation[1]
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


def map_dims(dims: Sequence[int], op: str) -> tuple[int, int, int]:
    """Return height, width and channels of a value; other values are a pixel or a row of pixels.

    Parameters
    ----------
    op : name of the op that is refused if the value has no such shape

    Raises
    ------
    Refusal
        The value has a batch.
    """
    if dims and dims[0] != 1:
        raise Refusal(f"batch size {dims[0]} is not supported", op)
    if len(dims) > 4:
        return 1, 1, math.prod(dims)
    shape = [1, 1, 1, *dims[1:]][-3:]
    return shape[0], shape[1], shape[2]
