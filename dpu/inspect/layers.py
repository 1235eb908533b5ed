"""A graph as layers in the usual sense: one per computing op.

An .xmodel represents a layer by several ops: constants, the `fix` of each of them, relu, the
`fix` of the output, copies to and from the DPU. This module collects them, in the same way for
quantised and compiled files, so that tools can list, draw and compare layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.dpu.ops import int8
from tutelage.dpu.ops.attributes import attr
from tutelage.dpu.ops.factors import scale_of
from tutelage.dpu.ops.registry import OpType, op_type, type_of
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op

INPUT = "input"
"""The kind of a graph's input."""


@dataclass(eq=False)
class Layer:
    """A computing op with the ops that belong to it.

    Attributes
    ----------
    op : the computing op, or an input of the graph
    output : the op that has the layer's result: `op` itself, or a relu or fix after it
    kind : op type without "-fix"; pools are "maxpool2d" and "avgpool2d", inputs "input"
    nonlinear : "NONE" or the DPU's name of its fused nonlinearity; "NUMBER 1" if the file has a
        number
    sources : layers that it reads, in the order of the op's arguments
    constants : ops that provide its constant operands (weights, bias), by argument name
    readers : layers that read it
    """

    op: Op
    output: Op
    kind: str
    nonlinear: str
    sources: list[Layer] = field(default_factory=list)
    constants: dict[str, list[Op]] = field(default_factory=dict)
    readers: list[Layer] = field(default_factory=list)

    @property
    def type(self) -> OpType:
        """The op type of its kind."""
        return op_type(self.kind)

    @property
    def name(self) -> str:
        """Name of the computing op, which is the same in quantised and compiled files."""
        return self.op.get_name()

    @property
    def dims(self) -> list[int]:
        """Shape of the result, batch first, channels last."""
        return self.op.get_output_tensor().dims

    @property
    def device(self) -> str | None:
        """ "DPU", "CPU" or "USER" in compiled files, None in quantised ones."""
        return str(self.op.get_attr("device")) if self.op.has_attr("device") else None

    @property
    def weights(self) -> Op | None:
        """The op that provides the weights, or None."""
        return next(iter(self.constants.get("weights", [])), None)

    @property
    def bias(self) -> Op | None:
        """The op that provides the bias, or None."""
        return next(iter(self.constants.get("bias", [])), None)

    @property
    def parameters(self) -> int:
        """Number of constant values that it reads."""
        ops = (op for group in self.constants.values() for op in group)
        return sum(op.get_output_tensor().get_element_num() for op in ops)

    @cached_property
    def fix_point(self) -> int | None:
        """Fix point of the result.

        If the file does not specify it, the compiler's rule applies: ops that move values keep
        their fix point, and inputs of a concat take that of the concat (found in PointPillars,
        whose quantised file has a fix after the concat and none before it).
        """
        own = fix_point_of(self.output)
        if own is None and self.type.moves:
            own = _common(fix_point_of(source.output) for source in self.sources)
        if own is None and all(reader.type.joins for reader in self.readers):
            own = _common(fix_point_of(reader.output) for reader in self.readers)
        return own

    @property
    def input_fix_points(self) -> list[int | None]:
        """Fix points of the layers that it reads."""
        return [source.fix_point for source in self.sources]

    @property
    def shift(self) -> int | None:
        """Right shift from the accumulator to the output: ``p_in + p_w - p_out``."""
        return self._accumulator_minus(self.fix_point)

    @property
    def bias_shift(self) -> int | None:
        """Left shift of the bias to the accumulator: ``p_in + p_w - p_bias``."""
        return None if self.bias is None else self._accumulator_minus(fix_point_of(self.bias))

    def _accumulator_minus(self, point: int | None) -> int | None:
        if self.weights is None or not self.sources or point is None:
            return None
        inner, weights = self.sources[0].fix_point, fix_point_of(self.weights)
        return None if inner is None or weights is None else inner + weights - point

    @property
    def kernel(self) -> list[int] | None:
        """Size [width, height] of the window, also of a global pool; None without a window."""
        if self.op.has_attr("global") and self.op.get_attr("global") and self.sources:
            height, width = self.sources[0].dims[1:3]
            return [width, height]
        return list(self.op.get_attr("kernel")) if self.op.has_attr("kernel") else None

    @property
    def stride(self) -> list[int]:
        """Stride [width, height] of the window; for a tile op, its block size in both."""
        given = self.op.get_attr("stride") if self.op.has_attr("stride") else None
        if isinstance(given, int):  # a tile op
            return [given, given]
        return list(given or [1, 1])

    @property
    def macs(self) -> int:
        """Number of multiply-accumulates for one image; 0 for ops without weights."""
        if not self.sources:
            return 0
        weights = self.weights
        taps = None if weights is None else weights.get_output_tensor().dims
        return self.type.macs(self.op, taps)


def is_dense(layer: Layer) -> bool:
    """Return whether each result sums over the whole input, as for a convolution over the map."""
    if layer.weights is None or len(layer.sources) != 1 or layer.dims[0] != 1:
        return False
    if not layer.type.is_dense(layer.op, layer.weights):
        return False
    outputs, values = layer.dims[-1], math.prod(layer.sources[0].dims)
    sizes = math.prod(layer.dims), math.prod(layer.weights.get_output_tensor().dims)
    return sizes == (outputs, outputs * values)


def dense_matrix(layer: Layer, weights: Array) -> Array:
    """Return the weights of a dense layer as a matrix that is the same for files of all forms.

    A quantiser may transpose a map to channels first, for PyTorch's order of the columns; AMD's
    compiler drops the transpose and permutes the matrix, or makes it a convolution's kernel.

    Parameters
    ----------
    layer : a layer for which `is_dense` is true
    weights : the weights as stored in its file

    Returns
    -------
    [outputs, inputs], the columns in the order of the map `origin(layer.sources[0])`
    """
    outputs = layer.dims[-1]
    matrix = layer.type.matrix(layer.op, weights, outputs)
    found = np.empty_like(matrix)
    found[:, _columns(layer.sources[0])] = matrix
    return np.ascontiguousarray(found)


def _columns(layer: Layer) -> Array:
    """Return, for each value of the layer in order, its index in the map of `origin`."""
    if not is_detour(layer):
        return np.arange(math.prod(layer.dims))
    (source,) = layer.sources
    places = _columns(source)
    if layer.type.permutes:
        places = places.reshape(source.dims).transpose(layer.op.get_attr("order"))
    return places.reshape(-1)


def is_detour(layer: Layer) -> bool:
    """Return whether the layer only changes the form of its input, without effect on results.

    This applies to layers that keep the order, and to transposes read only by dense layers.
    """
    if len(layer.sources) != 1:
        return False
    return layer.type.same_order or (layer.type.permutes and _ends_in_dense(layer))


def _ends_in_dense(layer: Layer) -> bool:
    return bool(layer.readers) and all(
        is_dense(reader)
        or ((reader.type.same_order or reader.type.permutes) and _ends_in_dense(reader))
        for reader in layer.readers
    )


def origin(layer: Layer) -> Layer:
    """Return the layer that computes the values, skipping all detours."""
    while is_detour(layer):
        layer = layer.sources[0]
    return layer


def is_shifted_bias(layer: Layer, quantised: Array, compiled: Array) -> bool:
    """Return whether a compiled bias is the quantised one, shifted for the accumulator.

    If the bias shift is below -1, AMD's compiler shifts the values and keeps the fix point. How it
    rounds then is not known, so either neighbour is accepted.

    Parameters
    ----------
    layer : layer of the quantised file
    """
    shift = layer.bias_shift
    if shift is None or shift >= -1 or quantised.shape != compiled.shape:
        return False
    exact = np.ldexp(quantised.astype(np.float64), shift + 1)
    return bool((np.abs(exact - compiled) < 1).all())


def fix_point_of(op: Op) -> int | None:
    """Return the fix point of an op's output: of its tensor, or of the op if it is a `fix`."""
    if type_of(op).rounds and op.has_attr("fix_point"):
        return int(op.get_attr("fix_point"))
    tensor = op.get_output_tensor()
    return int(tensor.get_attr("fix_point")) if tensor.has_attr("fix_point") else None


def _common(points: Iterable[int | None]) -> int | None:
    different = set(points)
    return different.pop() if len(different) == 1 else None


def layers_of(graph: Graph) -> list[Layer]:
    """Return the graph's layers in order of computation, including its inputs."""
    return _Gathering().gather(graph.toposort())


class _Gathering:
    """Walk over the ops that assigns each to a layer, or marks it as constant."""

    def __init__(self) -> None:
        self.constant: set[str] = set()
        self.home: dict[str, Layer] = {}
        self.layers: list[Layer] = []

    def gather(self, order: list[Op]) -> list[Layer]:
        """Assign all ops, given producers first, and return the layers."""
        for op in order:
            sources = [s for ops in op.get_input_ops().values() for s in ops]
            moving = [s for s in sources if s.get_name() not in self.constant]
            if type_of(op).source == "constant" or (sources and not moving):
                self.constant.add(op.get_name())
            elif len(moving) == 1 and self._joins(op, moving[0]):
                self.home[op.get_name()] = self.home[moving[0].get_name()]
            else:
                self._open(op)
        for layer in self.layers:
            for source in dict.fromkeys(layer.sources):
                source.readers.append(layer)
        return self.layers

    def _joins(self, op: Op, source: Op) -> bool:
        """Return whether `op` belongs to the layer of `source`, its only non-constant input.

        If so, the layer is extended by it.
        """
        layer, kind = self.home[source.get_name()], type_of(op)
        scales = source is layer.op and scale_of(source) is op
        if op.get_input_num() > 1 and not scales:
            return False
        if kind.transparent:
            return True
        # A value with other readers is a separate result, and must stay visible.
        if fix_point_of(layer.output) is not None or source.get_fanout_num() > 1:
            return False
        takes = not layer.type.moves or layer.type.fuses
        real = op.get_type() == kind.name
        if real and kind.nonlinear and layer.nonlinear == "NONE" and takes:
            if layer.kind == INPUT:
                return False
            layer.nonlinear = kind.nonlinear
        elif not kind.rounds and not scales:
            return False
        layer.output = op
        return True

    def _open(self, op: Op) -> None:
        layer = Layer(op, op, _kind(op), _nonlinear(op))
        for arg, ops in op.get_input_ops().items():
            for source in ops:
                if source.get_name() in self.constant:
                    # The constant factor of a product is its matrix; a shape is not a parameter.
                    role = "weights" if layer.type.takes_constants and arg == "input" else arg
                    if arg != "shape":
                        layer.constants.setdefault(role, []).append(source)
                else:
                    layer.sources.append(self.home[source.get_name()])
        self.home[op.get_name()] = layer
        self.layers.append(layer)


def _kind(op: Op) -> str:
    return INPUT if type_of(op).source == "input" else type_of(op).kind(op)


def _nonlinear(op: Op) -> str:
    own = type_of(op).nonlinear
    if own:
        return own
    given = attr(op, "nonlinear", None)
    if type(given) is int and given:  # in an old U50 file; the meaning of the numbers is unknown
        return f"NUMBER {given}"
    return int8.nonlinear(op)
